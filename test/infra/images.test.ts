// The images, as far as they can be tried without a container engine: their folders are laid out by the COPY lines and
// their commands are run in them, with nothing else in reach, against a real Redis.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { buildKernels } from '../../scripts/build.ts'
import { freePort, get, redisFor, root, stream, until } from '../e2e/processes.ts'
import { images } from './command.ts'
import { copies } from './dockerfile.ts'

/** The folder /app of the image. Packages and kernels are those of the checkout. */
async function layOut(folder: string, name: keyof typeof images): Promise<string> {
  const app = join(folder, name)
  const kernels = dirname(await buildKernels())
  for (const { from, sources, target } of copies(images[name].final)) {
    for (const source of sources) {
      const goal = join(app, target.endsWith('/') ? join(target, basename(source)) : target)
      mkdirSync(dirname(goal), { recursive: true })
      if (from === 'packages') symlinkSync(join(root, 'node_modules'), goal)
      else if (from === null) cpSync(join(root, source), goal, { recursive: true })
      else if (source.startsWith('/app/build/')) cpSync(join(kernels, basename(source)), goal)
    }
  }
  return app
}

/** PATH holds node and nothing else: no compiler, no redis-server. */
function startImage(t: TestContext, folder: string, name: keyof typeof images, app: string, args: string[]) {
  const [program, ...fixed] = images[name].entrypoint.filter((word) => word !== 'tini' && word !== '--')
  const env = { PATH: join(folder, 'bin'), HOME: '/nonexistent', XDG_CACHE_HOME: join(folder, 'cache') }
  const child = spawn(program!, [...fixed, ...args], { cwd: app, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const pipe of [child.stdout, child.stderr]) pipe.on('data', (chunk) => (output += chunk))
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  t.after(async () => {
    child.kill('SIGKILL')
    await exited
  })
  return { child, exited, output: () => output }
}

test('what the images hold is enough to serve a chat, and a SIGTERM ends both with code 0', async (t) => {
  const redis = await redisFor(t)
  if (!redis) return
  const folder = mkdtempSync(join(tmpdir(), 'pagestream-images-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, 'bin'))
  symlinkSync(process.execPath, join(folder, 'bin', 'node'))
  const port = await freePort()
  const metricsPort = await freePort()
  const gateway = startImage(t, folder, 'gateway', await layOut(folder, 'gateway'), [
    ...['--redis', redis, '--host', '127.0.0.1', '--port', `${port}`],
  ])
  const engine = startImage(t, folder, 'engine', await layOut(folder, 'engine'), [
    ...['scripts/demo/model', '--served-model-name', 'demo', '--redis', redis, '--metrics-port', `${metricsPort}`],
  ])
  for (const [process, at] of [[gateway, port] as const, [engine, metricsPort] as const]) {
    await until(
      process.output,
      async () => process.child.exitCode !== null || (await get(at, '/ready')) !== null,
      60_000,
    )
    for (const path of ['/live', '/ready', '/metrics'])
      assert.notEqual(await get(at, path), null, `${path}: ${process.output()}`)
  }
  const messages = [{ role: 'user', content: 'What is PagedAttention?' }]
  const answer = await stream(port, '/v1/chat/completions', { model: 'demo', messages, temperature: 0, max_tokens: 16 })
  assert.ok(answer.done && answer.text.length > 10, JSON.stringify(answer))
  assert.doesNotMatch(engine.output(), /building/)

  for (const { child, exited, output } of [engine, gateway]) {
    child.kill('SIGTERM')
    assert.equal(await exited, 0, output())
  }
})

for (const [name, { stages, final, entrypoint }] of Object.entries(images)) {
  test(`the ${name} image runs as a number other than root and brings no tools to build with`, () => {
    const user = final.find((each) => each.name === 'USER')!.text
    assert.match(user, /^[1-9]\d*$/, 'Kubernetes cannot tell a name from root')
    assert.ok(final.findIndex((each) => each.name === 'USER') > final.findLastIndex((each) => each.name === 'RUN'))
    assert.doesNotMatch(final.map(({ text }) => text).join('\n'), /apt-get|npm|g\+\+/)
    const packages = stages.flat().find(({ text }) => text.startsWith('npm '))!.text
    assert.match(packages, /^npm ci --omit=dev --ignore-scripts .*&& rm -rf node_modules\/node-linux-\*$/)
    for (const [from] of stages) assert.match(from!.text, /^node:24-bookworm-slim( AS \w+)?$/)
    assert.ok(final.some((each) => each.name === 'HEALTHCHECK' && each.text.includes('/ready')))
    // An engine that kills itself as process 1 would live on.
    assert.equal(entrypoint[0], name === 'engine' ? 'tini' : 'node')
  })
}

test('every package with an install script brings built binaries, for --ignore-scripts leaves it without', () => {
  type Package = { hasInstallScript?: boolean; dev?: boolean; optionalDependencies?: Record<string, string> }
  const lock = JSON.parse(readFileSync(`${root}package-lock.json`, 'utf8')) as { packages: Record<string, Package> }
  const scripted = Object.entries(lock.packages).filter(([, { hasInstallScript, dev }]) => hasInstallScript && !dev)
  assert.ok(scripted.length > 0)
  for (const [path, { optionalDependencies = {} }] of scripted) {
    const built = Object.keys(optionalDependencies).filter((name) => name.includes('linux-x64'))
    assert.ok(built.length > 0, `${path} needs its install script: let the Dockerfiles run it`)
  }
})
