// The heartbeat of an engine: renews its lease in Redis while the engine makes progress, not while the process merely
// lives. Progress: the step counter moved, or no step is running, or the running one is younger than `stepTimeoutMs`
// (a long prefill on a slow machine is work, not a hang).
//
// Runs in its own thread with its own connection (beat-thread.ts), where nothing that blocks the main thread delays
// it; on the main thread when the queue is embedded in the process. Without a first beat the queue gives no work.
import type { Clock } from '../queue/clock.ts'
import { beat, type EngineIdentity } from '../queue/consume.ts'
import type { Redis } from '../queue/redis.ts'
import type { Control } from './control.ts'

export type BeatOptions = {
  redis: Redis
  identity: EngineIdentity
  control: Control
  clock: Clock
  leaseMs: number
  stepTimeoutMs: number
  /** The lease was renewed; `cancelled` are held jobs that are no longer this engine's to run. */
  onBeat(cancelled: string[]): void
  /** The running step passed `stepTimeoutMs`: the lease is left to run out. Called once. */
  onStalled(): void
  onError(error: Error): void
}

export class Beat {
  /** Settles with the first beat. */
  readonly started: Promise<void>
  readonly #options: BeatOptions
  readonly #held = new Set<string>()
  readonly #stop: () => void
  #steps: number
  #progressAt: number
  #inFlight: Promise<void> | null = null
  #stalled = false

  constructor(options: BeatOptions) {
    this.#options = options
    this.#steps = options.control.steps
    this.#progressAt = options.clock.monotonic()
    this.started = this.#send()
    this.#stop = options.clock.every(options.leaseMs / 3, () => this.#tick())
  }

  /** What the engine holds; Redis gives back to the queue what it believes this engine has and is not held. */
  hold(id: string) {
    this.#held.add(id)
  }

  drop(id: string) {
    this.#held.delete(id)
  }

  async close() {
    this.#stop()
    await this.#inFlight
  }

  #tick() {
    // Redis is slow or gone: the beat in flight will end or time out, and the next tick tries again.
    if (this.#inFlight || !this.#progresses()) return
    this.#inFlight = this.#send()
      .catch(this.#options.onError)
      .finally(() => {
        this.#inFlight = null
      })
  }

  async #send() {
    const { redis, identity, control, leaseMs } = this.#options
    const { cancelled } = await beat(redis, identity, [...this.#held], control.steps, leaseMs)
    this.#options.onBeat(cancelled)
  }

  #progresses(): boolean {
    const { control, clock, stepTimeoutMs } = this.#options
    const steps = control.steps
    if (steps !== this.#steps || !control.isStepping) {
      this.#steps = steps
      this.#progressAt = clock.monotonic()
      return true
    }
    if (clock.monotonic() - this.#progressAt < stepTimeoutMs) return true
    if (!this.#stalled) {
      this.#stalled = true
      this.#options.onStalled()
    }
    return false
  }
}
