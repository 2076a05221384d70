// The keys of the embedded server: typed values, expiry by the injected clock, and no empty
// collections, as in Redis.
import type { Clock } from '../clock.ts'
import { RedisError } from './reply.ts'
import { SortedSet } from './sorted-set.ts'
import { StreamLog } from './stream-log.ts'

type Hash = Map<string, string>
type Content = string | Hash | string[] | SortedSet | StreamLog

/** Expired keys are dropped when touched, and some of the others on every so many lookups. */
const SWEEP_EVERY = 256

export class Keyspace {
  readonly #clock: Clock
  readonly #start: number
  readonly #keys = new Map<string, Content>()
  /** In order of the last PEXPIRE. */
  readonly #expiries = new Map<string, number>()
  #lookups = 0

  constructor(clock: Clock) {
    this.#clock = clock
    this.#start = clock.now() - clock.monotonic()
  }

  /** The server's time in Unix ms; started from the wall clock, it never jumps, for leases hang on it. */
  now(): number {
    return this.#start + this.#clock.monotonic()
  }

  get size(): number {
    for (const key of this.#expiries.keys()) this.#expire(key)
    return this.#keys.size
  }

  clear(): void {
    this.#keys.clear()
    this.#expiries.clear()
  }

  names(): string[] {
    for (const key of this.#expiries.keys()) this.#expire(key)
    return [...this.#keys.keys()]
  }

  /** Everything as it is now; the function it returns puts it back, as often as it is called. */
  snapshot(): () => void {
    const copy = (keys: Map<string, Content>) => [...keys].map(([key, content]) => [key, copyOf(content)] as const)
    const keys = new Map(copy(this.#keys))
    const expiries = [...this.#expiries]
    return () => {
      this.clear()
      for (const [key, content] of copy(keys)) this.#keys.set(key, content)
      for (const [key, at] of expiries) this.#expiries.set(key, at)
    }
  }

  has(key: string): boolean {
    return this.#find(key) !== undefined
  }

  delete(key: string): boolean {
    this.#expire(key)
    this.#expiries.delete(key)
    return this.#keys.delete(key)
  }

  /** `at`: ms on the clock. */
  expireAt(key: string, at: number): void {
    this.#expiries.delete(key)
    this.#expiries.set(key, at)
  }

  /** ms on the clock, undefined for a key that stays. */
  expiryOf(key: string): number | undefined {
    return this.#expiries.get(key)
  }

  string(key: string): string | undefined {
    const content = this.#find(key)
    if (content !== undefined && typeof content !== 'string') throw wrongType()
    return content
  }

  setString(key: string, text: string): void {
    this.#keys.set(key, text)
    this.#expiries.delete(key)
  }

  hash(key: string): Hash | undefined {
    return this.#typed(key, (content) => content instanceof Map) as Hash | undefined
  }

  list(key: string): string[] | undefined {
    return this.#typed(key, Array.isArray) as string[] | undefined
  }

  sortedSet(key: string): SortedSet | undefined {
    return this.#typed(key, (content) => content instanceof SortedSet) as SortedSet | undefined
  }

  stream(key: string): StreamLog | undefined {
    return this.#typed(key, (content) => content instanceof StreamLog) as StreamLog | undefined
  }

  makeHash = (key: string): Hash => this.hash(key) ?? this.#put(key, new Map())
  makeList = (key: string): string[] => this.list(key) ?? this.#put(key, [])
  makeSortedSet = (key: string): SortedSet => this.sortedSet(key) ?? this.#put(key, new SortedSet())
  makeStream = (key: string): StreamLog => this.stream(key) ?? this.#put(key, new StreamLog())

  #put<T extends Content>(key: string, content: T): T {
    this.#keys.set(key, content)
    return content
  }

  #typed(key: string, fits: (content: Content) => boolean): Content | undefined {
    const content = this.#find(key)
    if (content !== undefined && !fits(content)) throw wrongType()
    return content
  }

  #find(key: string): Content | undefined {
    if (++this.#lookups % SWEEP_EVERY === 0) this.#sweep()
    this.#expire(key)
    return this.#keys.get(key)
  }

  #expire(key: string): void {
    const at = this.#expiries.get(key)
    if (at === undefined || at > this.now()) return
    this.#expiries.delete(key)
    this.#keys.delete(key)
  }

  /** Oldest first, up to the first that lives: with few different lifetimes that finds nearly all. */
  #sweep(): void {
    const now = this.now()
    for (const [key, at] of this.#expiries) {
      if (at > now) return
      this.#expire(key)
    }
  }
}

function copyOf(content: Content): Content {
  if (typeof content === 'string') return content
  if (Array.isArray(content)) return [...content]
  return content instanceof Map ? new Map(content) : content.copy()
}

const wrongType = (): RedisError => new RedisError('WRONGTYPE Operation against a key holding the wrong kind of value')
