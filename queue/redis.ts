// What the queue asks of Redis, and the adapter of a real server (ioredis). Every verb takes a `Redis`; embedded.ts is
// the other implementation.
//
// Two connections: commands (automatic pipelining, no blocking command ever) and a subscriber. A command is answered,
// or fails, within `commandTimeoutMs`; while the connection is down new ones fail at once. Commands in flight when it
// breaks are sent again after it heals: every script of ours may be repeated.
import { Redis as Connection, type RedisOptions } from 'ioredis'
import { RedisUnreachable, RedisUnusable } from './errors.ts'
import { loadScripts, type ScriptName, type Scripts } from './scripts.ts'

/** Bulk strings and statuses are both Buffers. */
export type Reply = null | number | Buffer | Reply[]
export type Argument = string | Buffer | number

export interface Redis {
  command(name: string, ...args: Argument[]): Promise<Reply>
  script(name: ScriptName, keys: string[], args: Argument[]): Promise<Reply>
  /** Resolves when the subscription holds; resolves to a function that ends it. A channel may have several listeners. */
  subscribe(channel: string, listener: (message: Buffer) => void): Promise<() => void>
  /** Called after subscriptions were lost and made again: messages may have been missed. */
  onReconnect(listener: () => void): () => void
  close(): Promise<void>
}

export type ConnectOptions = {
  commandTimeoutMs?: number
  /** How long the first connection may take. */
  connectTimeoutMs?: number
  /** 0 <= random() < 1: spreads reconnections, so that a restarted server is not hit by all clients at once. */
  random?: () => number
  onError?: (error: Error) => void
  scripts?: Scripts
}

export async function connectRedis(url: string, options: ConnectOptions = {}): Promise<Redis> {
  const { commandTimeoutMs = 2000, connectTimeoutMs = 10_000, random = Math.random, onError = () => {} } = options
  const scripts = options.scripts ?? loadScripts()
  const settings = {
    ...endpoint(url),
    protocol: 2,
    lazyConnect: true,
    connectTimeout: connectTimeoutMs,
    commandTimeout: commandTimeoutMs,
    keepAlive: 10_000,
    noDelay: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: null,
    autoResubscribe: false,
    enableAutoPipelining: true,
    retryStrategy: (attempt: number) => 10 * 2 ** Math.min(attempt - 1, 5) * (0.5 + random()),
  } satisfies RedisOptions
  const commands = new Connection(settings)
  const subscriber = new Connection({ ...settings, enableAutoPipelining: false })
  let lastError: Error = new Error('no answer')
  for (const connection of [commands, subscriber]) {
    connection.on('error', (error: Error) => {
      lastError = error
      onError(error)
    })
  }
  try {
    await Promise.all([commands.connect(), subscriber.connect()])
    await checkServer(commands)
    // Loaded beforehand, so that the first calls keep their order; a restarted server is given each text again on demand.
    await Promise.all(Object.values(scripts).map(({ text }) => commands.script('LOAD', text)))
  } catch (error) {
    commands.disconnect()
    subscriber.disconnect()
    if (error instanceof RedisUnusable) throw error
    throw new RedisUnusable(`cannot use Redis at ${redact(url)}: ${lastError.message}`, { cause: error })
  }
  return new ServerRedis(commands, subscriber, scripts, onError)
}

type Endpoint = Pick<RedisOptions, 'path' | 'host' | 'port' | 'db' | 'username' | 'password' | 'tls'>

function endpoint(url: string): Endpoint {
  const parsed = URL.canParse(url) ? new URL(url) : null
  if (parsed?.protocol === 'unix:') return { path: decodeURIComponent(parsed.pathname) }
  if (parsed?.protocol !== 'redis:' && parsed?.protocol !== 'rediss:') {
    throw new RedisUnusable(`Redis URL must start with redis://, rediss:// or unix://, not "${redact(url)}"`)
  }
  return {
    host: parsed.hostname || '127.0.0.1',
    port: Number(parsed.port || 6379),
    db: Number(parsed.pathname.slice(1) || 0),
    ...(parsed.username && { username: decodeURIComponent(parsed.username) }),
    ...(parsed.password && { password: decodeURIComponent(parsed.password) }),
    ...(parsed.protocol === 'rediss:' && { tls: { servername: parsed.hostname } }),
  }
}

const redact = (url: string): string => url.replace(/\/\/[^@/]*@/, '//…@')

/** Scripts need 7.0 (`#!lua flags=`); any eviction policy but noeviction may silently drop jobs. */
async function checkServer(connection: Connection): Promise<void> {
  const info = await connection.info()
  const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? ''
  const version = field('redis_version')
  if (!(Number.parseInt(version, 10) >= 7)) {
    throw new RedisUnusable(`Redis 7.0 or newer is needed; the server is version ${version || 'unknown'}`)
  }
  const policy = field('maxmemory_policy')
  if (policy !== 'noeviction') {
    throw new RedisUnusable(
      `Redis must not evict keys: maxmemory-policy is "${policy}". Run: CONFIG SET maxmemory-policy noeviction`,
    )
  }
}

class ServerRedis implements Redis {
  readonly #commands: Connection
  readonly #subscriber: Connection
  readonly #scripts: Scripts
  readonly #channels = new Map<string, Set<(message: Buffer) => void>>()
  readonly #reconnected = new Set<() => void>()

  constructor(commands: Connection, subscriber: Connection, scripts: Scripts, onError: (error: Error) => void) {
    this.#commands = commands
    this.#subscriber = subscriber
    this.#scripts = scripts
    subscriber.on('messageBuffer', (channel: Buffer, message: Buffer) => {
      for (const listener of this.#channels.get(channel.toString()) ?? []) listener(message)
    })
    subscriber.on('ready', () => this.#resubscribe().catch(onError))
  }

  command(name: string, ...args: Argument[]): Promise<Reply> {
    if (this.#commands.status !== 'ready') return Promise.reject(new RedisUnreachable())
    // The named method, not callBuffer: automatic pipelining drops callBuffer's first argument (ioredis 6.0).
    const methods = this.#commands as unknown as Record<string, ((...args: Argument[]) => Promise<Reply>) | undefined>
    const method = methods[`${name.toLowerCase()}Buffer`]
    if (!method) return Promise.reject(new Error(`unknown Redis command ${name}`))
    return method.apply(this.#commands, args)
  }

  async script(name: ScriptName, keys: string[], args: Argument[]): Promise<Reply> {
    const { sha, text } = this.#scripts[name]
    try {
      return await this.command('EVALSHA', sha, keys.length, ...keys, ...args)
    } catch (error) {
      if (!/^NOSCRIPT /.test((error as Error).message)) throw error
      return this.command('EVAL', text, keys.length, ...keys, ...args)
    }
  }

  async subscribe(channel: string, listener: (message: Buffer) => void): Promise<() => void> {
    const listeners = this.#channels.get(channel) ?? new Set()
    this.#channels.set(channel, listeners)
    listeners.add(listener)
    const stop = () => {
      listeners.delete(listener)
      if (listeners.size > 0 || this.#channels.get(channel) !== listeners) return
      this.#channels.delete(channel)
      // A lost connection has lost its subscriptions too.
      this.#subscriber.unsubscribe(channel).catch(() => {})
    }
    try {
      await this.#subscriber.subscribe(channel)
    } catch (error) {
      stop()
      throw error
    }
    return stop
  }

  onReconnect(listener: () => void): () => void {
    this.#reconnected.add(listener)
    return () => this.#reconnected.delete(listener)
  }

  async #resubscribe(): Promise<void> {
    if (this.#channels.size > 0) await this.#subscriber.subscribe(...this.#channels.keys())
    for (const listener of this.#reconnected) listener()
  }

  async close(): Promise<void> {
    this.#commands.disconnect()
    this.#subscriber.disconnect()
  }
}
