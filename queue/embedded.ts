// A Redis in this process, for `serve` where no server is installed and for the simulation: the commands queue/ uses,
// the same Lua texts, time from the given clock. Nothing survives the process, and nobody outside it can connect.
//
// Scripts are compiled to JavaScript (embedded/lua-compiler.ts) rather than interpreted, because the simulation runs
// tens of thousands of seeds; what the compiler does not know it refuses, so the two servers cannot drift apart silently.
import type { Clock } from './clock.ts'
import { runCommand } from './embedded/commands.ts'
import { Keyspace } from './embedded/keyspace.ts'
import { type CompiledScript, compileLua } from './embedded/lua-compiler.ts'
import { runScript } from './embedded/lua-redis.ts'
import { Status, type Value } from './embedded/reply.ts'
import type { Argument, Redis, Reply } from './redis.ts'
import { loadScripts, type ScriptName, type Scripts } from './scripts.ts'

/** What only a server in one's own hands can do. */
export type EmbeddedRedis = Redis & {
  /** The names of all keys. */
  keys(): string[]
  /** Returns a function that takes the data back to this moment, as a server does that lost its last writes. */
  snapshot(): () => void
}

export function createEmbeddedRedis(clock: Clock, scripts: Scripts = loadScripts()): EmbeddedRedis {
  return new Embedded(clock, scripts)
}

/** By text: the simulation starts a server per seed. */
const compiled = new Map<string, CompiledScript>()

function compile(text: string): CompiledScript {
  const known = compiled.get(text) ?? compileLua(text)
  compiled.set(text, known)
  return known
}

class Embedded implements EmbeddedRedis {
  readonly #keys: Keyspace
  readonly #scripts = new Map<ScriptName, CompiledScript>()
  readonly #channels = new Map<string, Set<(message: Buffer) => void>>()
  #closed = false

  constructor(clock: Clock, scripts: Scripts) {
    this.#keys = new Keyspace(clock)
    for (const { name, text } of Object.values(scripts)) this.#scripts.set(name, compile(text))
  }

  async command(name: string, ...args: Argument[]): Promise<Reply> {
    this.#refuseClosed()
    return fromValue(this.#execute(name, args.map(toBytes)))
  }

  async script(name: ScriptName, keys: string[], args: Argument[]): Promise<Reply> {
    this.#refuseClosed()
    return fromValue(runScript(this.#scripts.get(name)!, keys.map(toBytes), args.map(toBytes), this.#execute))
  }

  async subscribe(channel: string, listener: (message: Buffer) => void): Promise<() => void> {
    this.#refuseClosed()
    const name = toBytes(channel)
    const listeners = this.#channels.get(name) ?? new Set()
    this.#channels.set(name, listeners)
    listeners.add(listener)
    return () => {
      listeners.delete(listener)
      if (listeners.size === 0 && this.#channels.get(name) === listeners) this.#channels.delete(name)
    }
  }

  /** Never called: a connection within the process does not break. */
  onReconnect(): () => void {
    return () => {}
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#channels.clear()
    this.#keys.clear()
  }

  keys(): string[] {
    return this.#keys.names()
  }

  snapshot(): () => void {
    return this.#keys.snapshot()
  }

  #refuseClosed(): void {
    if (this.#closed) throw new Error('the embedded Redis is closed')
  }

  #execute = (name: string, args: string[]): Value => {
    if (name.toUpperCase() !== 'PUBLISH') return runCommand(this.#keys, name, args)
    const [channel = '', text = ''] = args
    const listeners = this.#channels.get(channel)
    if (!listeners) return 0
    const message = Buffer.from(text, 'latin1')
    // After the command, as from a server: a listener never runs inside the caller's own call.
    queueMicrotask(() => {
      for (const listener of listeners) listener(message)
    })
    return 1
  }
}

function toBytes(argument: Argument): string {
  if (typeof argument === 'number') return String(argument)
  return (typeof argument === 'string' ? Buffer.from(argument, 'utf8') : argument).toString('latin1')
}

function fromValue(value: Value): Reply {
  if (value === null || typeof value === 'number') return value
  if (Array.isArray(value)) return value.map(fromValue)
  return Buffer.from(value instanceof Status ? value.text : value, 'latin1')
}
