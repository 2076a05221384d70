// The processes of one fault: a Redis of its own with an append-only file, gateways and engines started through the
// command line as a user would, each behind a fault proxy if asked. Everything a row starts here ends with close().
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { connectRedis, type Redis } from '../../queue/redis.ts'
import { FaultProxy } from '../../test/doubles/proxy.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const cli = `${root}scripts/pagestream.cjs`
const fakeEngine = `${root}scripts/bench/fake-engine.ts`
export const demo = `${root}scripts/demo/model`
export const LEASE_MS = 1000

export type Process = {
  child: ChildProcess
  pid: number
  port: number
  output(): string
  exited: Promise<number | null>
  /** Sends the signal; SIGKILL is awaited. */
  kill(signal: NodeJS.Signals): Promise<void>
}

export type RedisProcess = Process & { directory: string; url: string; restart(): Promise<void> }
export type Engine = Process & { id(): string }
export type Via = { proxy: FaultProxy; url: string }

export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

export async function until(what: () => string, holds: () => Promise<boolean>, timeoutMs = 20_000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`timed out waiting for ${what()}`)
    await pause(25)
  }
}

/** A process that ends before it is ready will never be. */
async function began(what: string, process: Process, ready: () => Promise<boolean>): Promise<void> {
  const described = () => `the ${what} to be ready: ${process.output()}`
  await until(
    described,
    async () => {
      if (process.child.exitCode !== null) throw new Error(`the ${what} ended: ${process.output()}`)
      return ready()
    },
    60_000,
  )
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

export async function get(port: number, path: string, timeoutMs = 3000): Promise<{ status: number; text: string }> {
  const signal = AbortSignal.timeout(timeoutMs)
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { signal }).catch(() => null)
  return { status: response?.status ?? 0, text: (await response?.text()) ?? '' }
}

/** Value of a metric summed over its labels. */
export async function metric(process: Process, name: string): Promise<number> {
  const lines = (await get(process.port, '/metrics')).text.split('\n')
  const values = lines.filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
  return values.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}

export class Lab {
  readonly #closers: (() => Promise<unknown>)[] = []
  #redis: RedisProcess | null = null
  #control: Redis | null = null

  get redis(): RedisProcess {
    if (!this.#redis) throw new Error('startRedis comes first')
    return this.#redis
  }

  /** A connection of the experimenter's own. */
  async control(): Promise<Redis> {
    if (!this.#control) {
      const redis = await connectRedis(this.redis.url)
      this.#closers.push(() => redis.close())
      this.#control = redis
    }
    return this.#control
  }

  async startRedis(...flags: string[]): Promise<RedisProcess> {
    const directory = mkdtempSync(join(tmpdir(), 'pagestream-fault-'))
    this.#closers.push(async () => rmSync(directory, { recursive: true, force: true }))
    const port = await freePort()
    const aof = ['--appendonly', 'yes', '--appendfsync', 'everysec', '--save', '']
    const args = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', directory, ...aof, ...flags]
    const begin = async () => {
      // A write beyond limitFileSize fails, rather than ending the process.
      const process = this.#spawn('/bin/sh', ['-c', 'trap "" XFSZ; exec redis-server "$@"', 'sh', ...args], port)
      await began('redis-server', process, async () => process.output().includes('Ready to accept connections'))
      return process
    }
    const first = await begin()
    const redis: RedisProcess = {
      ...first,
      directory,
      url: `redis://127.0.0.1:${port}`,
      restart: async () => {
        await redis.kill('SIGKILL')
        Object.assign(redis, await begin())
      },
    }
    this.#redis = redis
    return redis
  }

  /** A copy of what Redis has written so far, to be put back by restoreRedis. */
  snapshotRedis(): string {
    const copy = mkdtempSync(join(tmpdir(), 'pagestream-fault-'))
    this.#closers.push(async () => rmSync(copy, { recursive: true, force: true }))
    cpSync(this.redis.directory, copy, { recursive: true })
    return copy
  }

  /** Kills Redis and starts it on an older state, as after a loss of power. */
  async restoreRedis(copy: string): Promise<void> {
    await this.redis.kill('SIGKILL')
    rmSync(this.redis.directory, { recursive: true, force: true })
    cpSync(copy, this.redis.directory, { recursive: true })
    await this.redis.restart()
  }

  /** A proxy before Redis, for one process. */
  async via(): Promise<Via> {
    const proxy = await FaultProxy.open({ host: '127.0.0.1', port: this.redis.port })
    this.#closers.push(() => proxy.close())
    return { proxy, url: `redis://127.0.0.1:${proxy.port}` }
  }

  async gateway({ flags = [], url = this.redis.url }: { flags?: string[]; url?: string } = {}): Promise<Process> {
    const port = await freePort()
    const args = ['gateway', '--redis', url, '--host', '127.0.0.1', '--port', `${port}`, '--log-level', 'warn']
    const process = this.#spawn(globalThis.process.execPath, [cli, ...args, ...flags], port)
    await began('gateway', process, async () => (await get(port, '/ready')).status === 200)
    return process
  }

  async engine({ flags = [], url = this.redis.url }: { flags?: string[]; url?: string } = {}): Promise<Engine> {
    const port = await freePort()
    const args = ['engine', demo, '--served-model-name', 'demo', '--redis', url, '--metrics-port', `${port}`]
    const process = this.#spawn(
      globalThis.process.execPath,
      [cli, ...args, '--lease-ms', `${LEASE_MS}`, ...flags],
      port,
    )
    await began('engine', process, async () => (await get(port, '/ready')).status === 200)
    return { ...process, id: () => /"engine":"([\w-]{36})"/.exec(process.output())?.[1] ?? '' }
  }

  /** An engine without a model, which gives a token of every sequence each `ms`. */
  async fake(ms: number, { url = this.redis.url, flags = [] as string[] } = {}): Promise<Process> {
    const args = ['--redis', url, '--model', `fake-i${ms}`, '--lease-ms', `${LEASE_MS}`, ...flags]
    const process = this.#spawn(globalThis.process.execPath, [fakeEngine, ...args], 0)
    await began('fake engine', process, async () => process.output().includes('ready'))
    return process
  }

  /** Writes of the process beyond this size of a file fail, as on a full disk. */
  limitFileSize(pid: number, bytes: string): void {
    execFileSync('prlimit', ['--pid', `${pid}`, `--fsize=${bytes}:unlimited`])
  }

  async close(): Promise<void> {
    for (const close of this.#closers.reverse()) await close()
  }

  #spawn(program: string, args: string[], port: number): Process {
    const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk) => {
        text = (text + chunk).slice(-200_000)
      })
    }
    const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
    const kill = async (signal: NodeJS.Signals) => {
      child.kill(signal)
      if (signal === 'SIGKILL') await exited
    }
    this.#closers.push(() => kill('SIGKILL'))
    return { child, pid: child.pid ?? 0, port, output: () => text, exited, kill }
  }
}
