// A clock that moves when told to. Timers run in order of time; between them promises get their turn.
import type { Clock } from '../../queue/clock.ts'

type Timer = { at: number; run: () => void }

export class ManualClock implements Clock {
  #ms = 0
  #timers: Timer[] = []

  now = () => 1_700_000_000_000 + this.#ms
  monotonic = () => this.#ms

  sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      const stop = this.after(ms, resolve)
      signal?.addEventListener('abort', () => {
        stop()
        reject(signal.reason)
      })
    })

  every = (ms: number, run: () => void): (() => void) => {
    let stop = () => {}
    const again = () => {
      stop = this.after(ms, again)
      run()
    }
    stop = this.after(ms, again)
    return () => stop()
  }

  after = (ms: number, run: () => void): (() => void) => {
    const timer = { at: this.#ms + ms, run }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }

  async advance(ms: number): Promise<void> {
    const end = this.#ms + ms
    for (;;) {
      await settle()
      const next = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0]
      if (!next) break
      this.#timers = this.#timers.filter((timer) => timer !== next)
      this.#ms = Math.max(this.#ms, next.at)
      next.run()
    }
    this.#ms = end
    await settle()
  }
}

/** Lets promise chains that wait for nothing outside run out. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
