// Starts a Redis server for this process alone, when one is installed: on a unix socket in a folder of its own, so that
// it needs no port and no password and nobody else can reach it. `npm start` uses it, and the tests do.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { type Clock, systemClock } from './clock.ts'
import { RedisUnusable } from './errors.ts'

export type RedisServerOptions = {
  /** Folders to search, as in the environment's PATH. */
  path: string
  /** Keeps data here (append-only file, fsync every second); without it nothing is written to disk. */
  directory?: string
  /** Further lines of configuration as arguments, e.g. ['--maxmemory', '100mb']. */
  args?: string[]
  clock?: Clock
}

export type RedisServer = { url: string; pid: number; close(): Promise<void> }

const START_MS = 10_000

/** Null when neither redis-server nor valkey-server is on the path. */
export async function startRedisServer(options: RedisServerOptions): Promise<RedisServer | null> {
  const program = find(options.path)
  if (!program) return null
  const clock = options.clock ?? systemClock
  const folder = mkdtempSync(join(tmpdir(), 'pagestream-redis-'))
  const socket = join(folder, 'redis.sock')
  const storage = options.directory
    ? ['--dir', options.directory, '--appendonly', 'yes', '--appendfsync', 'everysec']
    : ['--dir', folder, '--appendonly', 'no']
  const child = spawn(
    program,
    ['--port', '0', '--unixsocket', socket, '--unixsocketperm', '700', '--save', '', '--daemonize', 'no']
      .concat(storage)
      .concat(options.args ?? []),
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let output = ''
  const note = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-2000)
  }
  child.stdout.on('data', note)
  child.stderr.on('data', note)
  const ended = once(child, 'exit').catch(() => {})
  // A child must not outlive its parent, however that ends; a killed parent leaves it, but on a socket nobody knows.
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)

  const close = async () => {
    process.off('exit', kill)
    child.kill('SIGTERM')
    await ended
    rmSync(folder, { recursive: true, force: true })
  }
  const deadline = clock.monotonic() + START_MS
  while (!existsSync(socket)) {
    if (child.exitCode !== null || clock.monotonic() > deadline) {
      await close()
      throw new RedisUnusable(`${program} did not start:\n${output.trim()}`)
    }
    await clock.sleep(10)
  }
  return { url: `unix://${socket}`, pid: child.pid!, close }
}

function find(path: string): string | undefined {
  const candidates = ['redis-server', 'valkey-server'].flatMap((name) =>
    path.split(delimiter).map((folder) => join(folder, name)),
  )
  return candidates.find((candidate) => {
    try {
      accessSync(candidate, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
