// What `npm pack` makes works in somebody else's project: the command, and the library with its types.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { freePort, root, stream, until } from './processes.ts'

const run = promisify(execFile)
const unreachable = /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENOTCACHED|network/i

const library = `
import { LLM, SamplingParams } from 'pagestream'
const llm = new LLM({ model: process.argv[2] })
const outputs = await llm.generate(['Pagestream is'], new SamplingParams({ temperature: 0, max_tokens: 8 }))
console.log(JSON.stringify(outputs[0].outputs[0].text))
await llm.close()
`

test('the package installs in an empty project, serves a chat and works as a library', {
  timeout: 400_000,
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'pagestream-pack-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: root })
  const [packed] = JSON.parse(stdout.slice(stdout.indexOf('[\n'))) as { filename: string; files: { path: string }[] }[]
  const paths = packed!.files.map(({ path }) => path)
  for (const path of ['dist/queue/lua/claim.lua', 'dist/engine/kernels/pagestream.h', 'README.md', 'LICENSE']) {
    assert.ok(paths.includes(path), `${path} is missing from the package`)
  }
  assert.deepEqual(
    paths.filter((path) => /(^test|\.test\.|(?<!\.d)\.ts$)/.test(path)),
    [],
    'no sources, no tests',
  )

  const project = join(folder, 'project')
  mkdirSync(project)
  writeFileSync(join(project, 'package.json'), '{"name":"project","version":"1.0.0","private":true,"type":"module"}')
  const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', join(folder, packed!.filename)]
  const failure = await run('npm', install, { cwd: project }).then(
    () => null,
    (error: Error) => error,
  )
  if (failure && unreachable.test(failure.message)) return t.skip('the package registry cannot be reached')
  assert.equal(failure, null)

  const port = await freePort()
  const args = ['pagestream', 'serve', '--redis', 'embedded', '--port', `${port}`]
  const server = spawn('npx', args, { cwd: project, detached: true, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const pipe of [server.stdout, server.stderr]) pipe.on('data', (chunk) => (output += chunk))
  t.after(() => server.exitCode === null && process.kill(-server.pid!, 'SIGKILL'))
  await until(
    () => `npx pagestream serve:\n${output}`,
    async () => /^Serving /m.test(output) || server.exitCode !== null,
    200_000,
  )
  assert.equal(server.exitCode, null, output)
  const messages = [{ role: 'user', content: 'What is PagedAttention?' }]
  const answer = await stream(port, '/v1/chat/completions', { model: 'demo', messages, temperature: 0 })
  assert.ok(answer.done)
  assert.match(answer.text, /block|page|memory/i)

  writeFileSync(join(project, 'library.js'), library)
  const installed = join(project, 'node_modules', 'pagestream')
  const model = join(installed, 'dist', 'scripts', 'demo', 'model')
  const { stdout: text } = await run(process.execPath, ['library.js', model], { cwd: project })
  assert.match(text, /^".+"$/m)
  const { types } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')).exports['.']
  assert.ok(existsSync(join(installed, types)), 'the types are in the package')
})
