// What a newcomer meets: an answer from one command, and one clear line with a bad exit code for every mistake.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { demo, freePort, root, start, stream } from './processes.ts'
import { serve, spawnServe } from './serve.ts'

/** Runs a command line that is expected to end by itself. */
async function outcome(t: TestContext, ...args: string[]): Promise<{ code: number | null; output: string }> {
  const process = start(t, args, 0)
  return { code: await process.exited, output: process.output() }
}

test('serve answers over SSE, tells how to talk to it, and drains on SIGTERM', { timeout: 120_000 }, async (t) => {
  const server = await serve(t, [])
  const body = { model: 'demo', messages: [{ role: 'user', content: 'What is PagedAttention?' }], temperature: 0 }
  const answer = await stream(server.port, '/v1/chat/completions', body)
  assert.equal(answer.status, 200)
  assert.ok(answer.done)
  assert.match(answer.text, /block|page|memory/i)
  assert.match(server.output(), /queue: embedded in this process/)
  assert.match(server.output(), new RegExp(`curl -N http://127.0.0.1:${server.port}/v1/chat/completions`))
  assert.match(server.output(), /new OpenAI\(/)

  const long = { model: 'demo', prompt: 'Pagestream is', max_tokens: 300, ignore_eos: true, temperature: 0 }
  let isFirst = true
  const open = stream(server.port, '/v1/completions', long, () => {
    if (isFirst) server.child.kill('SIGTERM')
    isFirst = false
  })
  const finished = await open
  assert.ok(finished.done, 'a stream under way is finished before the process ends')
  assert.equal(finished.chunks.at(-1)?.usage?.completion_tokens, 300)
  assert.equal(await server.exited, 0, server.output())
})

test('a signal while serve starts ends it at once', { timeout: 60_000 }, async (t) => {
  const silentStore = createServer()
  await new Promise<void>((resolve) => silentStore.listen(0, '127.0.0.1', resolve))
  const sockets = new Set<Socket>()
  const asked = new Promise<void>((resolve) => {
    silentStore.on('connection', (socket) => {
      sockets.add(socket)
      resolve()
    })
  })
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    silentStore.close()
  })
  const endpoint = `http://127.0.0.1:${(silentStore.address() as AddressInfo).port}`
  const env = { AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'secret', AWS_REGION: 'us-east-1' }
  const server = await spawnServe(t, ['s3://models/demo', '--s3-endpoint', endpoint], env)
  await asked
  server.child.kill('SIGTERM')
  assert.equal(await server.exited, 1)
  assert.match(server.output(), /SIGTERM: stopped at once/)
})

test('an occupied port is one clear line', { timeout: 60_000 }, async (t) => {
  const squatter = createServer()
  t.after(() => squatter.close())
  const port = await freePort()
  await new Promise<void>((resolve) => squatter.listen(port, '127.0.0.1', resolve))
  const { code, output } = await outcome(t, 'serve', '--redis', 'embedded', '--port', `${port}`)
  assert.equal(code, 1)
  assert.match(output, new RegExp(`^pagestream: .*${port}.*in use; choose another with --port$`, 'm'))
  assert.doesNotMatch(output, /^ +at /m)
})

test('a model that cannot be read is one clear line', { timeout: 120_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'pagestream-bad-model-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const cases: [args: string[], message: RegExp][] = [
    [['/nowhere/at/all'], /^pagestream: .*\/nowhere\/at\/all/m],
    [[folder], /^pagestream: .*config\.json/m],
  ]
  for (const [args, message] of cases) {
    const server = await spawnServe(t, args)
    assert.equal(await server.exited, 1, server.output())
    assert.match(server.output(), message)
    assert.doesNotMatch(server.output(), /^ +at /m)
  }
  cpSync(demo, folder, { recursive: true })
  writeFileSync(join(folder, 'config.json'), '{"architectures":["GPT9ForCausalLM"],"model_type":"gpt9"}')
  const server = await spawnServe(t, [folder])
  assert.equal(await server.exited, 1, server.output())
  assert.match(server.output(), /^pagestream: .*GPT9ForCausalLM/m)
})

test('mistakes on the command line end with code 2 and say what would be right', { timeout: 60_000 }, async (t) => {
  const cases: [args: string[], message: RegExp][] = [
    [['sreve'], /unknown command sreve; did you mean serve\?/],
    [['serve', '--prot', '80'], /unknown flag --prot; did you mean --port\?/],
    [['serve', '--max-num-seqs', '0'], /--max-num-seqs/],
    [['gateway'], /--redis URL .*is needed/],
    [['engine'], /which model\?/],
    [['keys'], /pagestream keys create/],
  ]
  for (const [args, message] of cases) {
    const { code, output } = await outcome(t, ...args)
    assert.equal(code, 2, output)
    assert.match(output, message)
  }
})

test('an old Node hands over to the packaged one', { timeout: 60_000 }, (t) => {
  const old = ['/usr/bin/node', '/usr/local/bin/node'].find((path) => existsSync(path) && majorOf(path) < 24)
  if (!old) return t.skip('no Node older than 24 here')
  const output = execFileSync(old, [`${root}scripts/pagestream.cjs`, '--version'], { encoding: 'utf8' })
  assert.match(output, /^\d+\.\d+\.\d+\n$/)
})

function majorOf(node: string): number {
  return Number(execFileSync(node, ['-p', 'process.versions.node'], { encoding: 'utf8' }).split('.')[0])
}
