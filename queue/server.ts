// Starts a Redis server for this process alone, when one is installed: on a unix socket in a folder of its own, so that
// it needs no port and no password and nobody else can reach it. `npm start` uses it, and the tests do.
//
// The server lives as long as a pipe from this process is open. A shell watches the pipe, so that the server ends with
// us even after kill -9; in a session of its own it does not hear a Ctrl-C before we have drained.
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

export type RedisServer = { url: string; close(): Promise<void> }

const START_MS = 10_000

/** $0 and $@ are the server's command line. Descriptor 3 is the pipe: sh gives /dev/null to what runs in the background. */
const whilePipeIsOpen =
  'exec 3<&0; "$0" "$@" 3<&- & server=$!; { cat <&3 >/dev/null; kill $server; } 2>/dev/null & wait $server'

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
  const args = ['--port', '0', '--unixsocket', socket, '--unixsocketperm', '700', '--save', '', '--daemonize', 'no']
  const child = spawn('/bin/sh', ['-c', whilePipeIsOpen, program, ...args, ...storage, ...(options.args ?? [])], {
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  })
  let output = ''
  const note = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-2000)
  }
  child.stdout.on('data', note)
  child.stderr.on('data', note)
  const ended = once(child, 'exit').catch(() => {})

  const close = async () => {
    child.stdin.end()
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
  return { url: `unix://${socket}`, close }
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
