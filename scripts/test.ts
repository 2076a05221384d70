// `npm test`: makes sure that the kernels are built and that a redis-server is there if one can be had, then runs every
// test, or those under the paths given: `npm test -- test/queue`. One file after the other: end-to-end tests start
// whole clusters and measure leases, which neighbours on a small machine would disturb.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, globSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildKernels } from './build.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const aptTimeoutMs = 120_000

function onPath(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, program)))
}

/** Tests that need a server skip without one, so this may fail. Only root may install, and only apt is known here. */
function provideRedis(): void {
  if (onPath('redis-server') || onPath('valkey-server')) return
  const isRoot = process.getuid?.() === 0
  if (isRoot && onPath('apt-get')) {
    console.log('redis-server is missing: installing it with apt-get')
    // RUNLEVEL=1 keeps the package from starting a server of its own.
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
    const apt = (...args: string[]) =>
      spawnSync('apt-get', ['-qq', ...args], { env, timeout: aptTimeoutMs, stdio: 'ignore' }).status === 0
    const install = () => apt('install', '-y', '--no-install-recommends', 'redis-server')
    if (install() || (apt('update') && install())) return
  }
  console.log('redis-server is not installed, so tests that need it are skipped: sudo apt-get install redis-server')
}

function testFiles(paths: string[]): string[] {
  if (paths.length === 0) return globSync('test/**/*.test.ts', { cwd: root }).sort()
  return paths.flatMap((path) =>
    path.endsWith('.ts') ? [path] : globSync(`${path}/**/*.test.ts`, { cwd: root }).sort(),
  )
}

async function main(): Promise<number> {
  provideRedis()
  await buildKernels({ log: (line) => console.log(line) })
  const files = testFiles(process.argv.slice(2))
  if (files.length === 0) throw new Error('no test file there')
  const tests = spawn(process.execPath, ['--test', '--test-concurrency=1', '--test-timeout=480000', ...files], {
    cwd: root,
    stdio: 'inherit',
  })
  return new Promise((resolve) => tests.on('close', (code) => resolve(code ?? 1)))
}

main().then(
  (code) => process.exit(code),
  (error: Error) => {
    console.error(error.message)
    process.exit(1)
  },
)
