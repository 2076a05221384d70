// A clock that stands still until a test moves it; timers fire in order of their time.
import type { Clock } from '../../queue/clock.ts'

type Timer = { at: number; every: number | null; run: () => void }

export class ManualClock implements Clock {
  #now = 0
  #timers = new Set<Timer>()

  now = () => 1_700_000_000_000 + this.#now
  monotonic = () => this.#now

  sleep = (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const timer = this.#add(ms, null, resolve)
      signal?.addEventListener('abort', () => {
        this.#timers.delete(timer)
        reject(signal.reason)
      })
    })

  every = (ms: number, run: () => void) => this.#stop(this.#add(ms, ms, run))
  after = (ms: number, run: () => void) => this.#stop(this.#add(ms, null, run))

  /** Moves time on, letting pending promises run before and after every timer. */
  async advance(ms: number) {
    const end = this.#now + ms
    await settled()
    for (;;) {
      const next = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0]
      if (!next) break
      this.#now = next.at
      if (next.every === null) this.#timers.delete(next)
      else next.at += next.every
      next.run()
      await settled()
    }
    this.#now = end
  }

  #add(ms: number, every: number | null, run: () => void): Timer {
    const timer = { at: this.#now + ms, every, run }
    this.#timers.add(timer)
    return timer
  }

  #stop(timer: Timer) {
    return () => {
      this.#timers.delete(timer)
    }
  }
}

/** Everything that can run without time passing has run. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
