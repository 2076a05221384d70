// A simulated operating-system process: whatever happens in it (a timer, a reply, a message) comes in through deliver().
// Frozen, it hears nothing until it wakes, and then everything at once, like a process after SIGSTOP and SIGCONT or a
// machine that was suspended; dead, it hears nothing for ever.
import type { Clock } from '../../queue/clock.ts'
import type { Timeline } from './timeline.ts'

const EPOCH = Date.UTC(2026, 0, 1)

export class Process {
  readonly name: string
  readonly clock: Clock
  /** ms by which its wall clock is wrong; the monotonic one never is. */
  skew = 0
  /** ms by which everything reaches it later than it should. */
  slowness = 0
  #state: 'running' | 'frozen' | 'dead' = 'running'
  #parked: (() => void)[] = []
  #ends: (() => void)[] = []

  constructor(name: string, timeline: Timeline) {
    this.name = name
    this.clock = createClock(timeline, this)
  }

  get isDead(): boolean {
    return this.#state === 'dead'
  }

  get isFrozen(): boolean {
    return this.#state === 'frozen'
  }

  deliver(run: () => void): void {
    if (this.#state === 'running') run()
    else if (this.#state === 'frozen') this.#parked.push(run)
  }

  freeze(): void {
    if (this.#state === 'running') this.#state = 'frozen'
  }

  wake(): void {
    if (this.#state !== 'frozen') return
    this.#state = 'running'
    for (const run of this.#parked.splice(0)) this.deliver(run)
  }

  kill(): void {
    if (this.#state === 'dead') return
    this.#state = 'dead'
    this.#parked = []
    for (const end of this.#ends) end()
  }

  onDeath(end: () => void): void {
    this.#ends.push(end)
  }
}

function createClock(timeline: Timeline, process: Process): Clock {
  const after = (ms: number, run: () => void) => {
    let isOff = false
    const drop = timeline.after(ms, () => process.deliver(() => isOff || run()))
    return () => {
      isOff = true
      drop()
    }
  }
  const every = (ms: number, run: () => void) => {
    let stop = () => {}
    const again = () => {
      stop = after(ms, again)
      run()
    }
    stop = after(ms, again)
    return () => stop()
  }
  const sleep = (ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      const stop = after(ms, resolve)
      signal?.addEventListener('abort', () => {
        stop()
        reject(signal.reason)
      })
    })
  return {
    now: () => Math.floor(EPOCH + timeline.now + process.skew),
    monotonic: () => timeline.now,
    after,
    every,
    sleep,
  }
}
