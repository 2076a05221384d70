// Whether Redis answers. It is asked twice a second, so that while it is away new requests are refused at once instead of
// each waiting for its own timeout; streams under way go on and heal by themselves when it is back.
import type { Clock } from '../queue/clock.ts'
import type { Redis } from '../queue/redis.ts'
import { queueUnavailable } from './errors.ts'

const ASK_MS = 500
/** Longest that a new request waits for Redis. */
const WAIT_MS = 800

export class Breaker {
  readonly #redis: Redis
  readonly #clock: Clock
  #asking = false
  #silence: unknown = null

  constructor(redis: Redis, clock: Clock) {
    this.#redis = redis
    this.#clock = clock
  }

  /** Returns the function that stops it. */
  start(): () => void {
    return this.#clock.every(ASK_MS, () => this.#ask())
  }

  /** @throws 503 queue_unavailable while Redis does not answer */
  check(): void {
    if (this.#silence !== null) throw queueUnavailable(this.#silence)
  }

  async #ask(): Promise<void> {
    if (this.#asking) return
    this.#asking = true
    const ping = this.#redis.command('PING')
    try {
      await within(this.#clock, ping)
      this.#silence = null
    } catch (error) {
      this.#silence = error
      await ping.catch(() => {})
    } finally {
      this.#asking = false
    }
  }
}

/** What Redis answered, or an error when it took too long. The command may still take effect. */
export async function within<T>(clock: Clock, answer: Promise<T>, ms = WAIT_MS): Promise<T> {
  const late = Promise.withResolvers<never>()
  const stop = clock.after(ms, () => late.reject(new Error(`Redis did not answer within ${ms} ms`)))
  try {
    return await Promise.race([answer, late.promise])
  } finally {
    stop()
  }
}
