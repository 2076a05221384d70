// The patience of one source: how many connections, how long a silence, how many attempts, how long a pause. Pauses grow
// and are drawn at random, so that a fleet of engines does not come back in step. Used by ranges.ts, s3.ts and hub.ts.
import type { Clock } from '../../queue/clock.ts'
import { SourceError } from './source.ts'

export type Network = {
  clock: Clock
  random: () => number
  warn: (message: string) => void
  gate: Gate
  /** Attempts after the first, per range. With a third of all answers 503, a 16 GB model (2,000 parts) arrives with
   * 8 (0.3^9 * 2,000 = 0.04 parts lost) and not with 5 (1.5 parts lost). */
  retries: number
  /** First pause at most this long; doubles up to `maxPauseMs`. */
  pauseMs: number
  maxPauseMs: number
  /** A connection that is silent for this long is given up. */
  idleMs: number
  /** Unit of parallel transfer. */
  partBytes: number
}

const defaults = { retries: 8, pauseMs: 250, maxPauseMs: 10_000, idleMs: 10_000, partBytes: 8 << 20 }

/** About two seconds of pauses: from here on whoever waits should know why. */
const failuresBeforeWarning = 4

export type NetworkOptions = Partial<typeof defaults> & { connections?: number }

export function createNetwork(
  clock: Clock,
  random: () => number,
  warn: (message: string) => void = () => {},
  { connections = 8, ...options }: NetworkOptions = {},
): Network {
  return { clock, random, warn, gate: new Gate(connections), ...defaults, ...options }
}

/** Lets `room` callers in at a time, in the order they came: the bound on connections of one source. */
export class Gate {
  #room: number
  #waiting: (() => void)[] = []

  constructor(room: number) {
    this.#room = room
  }

  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.#room > 0) this.#room--
    else await new Promise<void>((enter) => this.#waiting.push(enter))
    try {
      return await work()
    } finally {
      const next = this.#waiting.shift()
      if (next) next()
      else this.#room++
    }
  }
}

/** Runs `attempt` until it succeeds, throws a SourceError, or has failed too often. */
export async function persist<T>(
  what: string,
  network: Network,
  attempt: (signal: AbortSignal, pulse: Pulse) => Promise<T>,
  signal: AbortSignal = new AbortController().signal,
): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await watched(network, signal, attempt)
    } catch (error) {
      if (error instanceof SourceError) throw error
      if (failures > network.retries)
        throw new SourceError('unreachable', `${what}: gave up after ${failures} attempts: ${reason(error)}`, {
          cause: error,
        })
      if (failures === failuresBeforeWarning)
        network.warn(`${what}: ${failures} attempts failed, the last with ${reason(error)}; going on trying`)
    }
    const longest = Math.min(network.maxPauseMs, network.pauseMs * 2 ** (failures - 1))
    await network.clock.sleep(longest * (0.5 + network.random() / 2), signal).catch(() => {})
    signal.throwIfAborted()
  }
}

/** An attempt says when bytes came, and when it is itself the slow one (from `hold` to the next `beat`). */
export class Pulse {
  #clock: Clock
  #heard: number

  constructor(clock: Clock) {
    this.#clock = clock
    this.#heard = clock.monotonic()
  }

  beat(): void {
    this.#heard = this.#clock.monotonic()
  }

  hold(): void {
    this.#heard = Number.POSITIVE_INFINITY
  }

  silentMs(): number {
    return this.#clock.monotonic() - this.#heard
  }
}

async function watched<T>(
  { clock, idleMs }: Network,
  signal: AbortSignal,
  attempt: (signal: AbortSignal, pulse: Pulse) => Promise<T>,
): Promise<T> {
  const silence = new AbortController()
  const pulse = new Pulse(clock)
  const unwatch = clock.every(idleMs / 4, () => {
    if (pulse.silentMs() > idleMs) silence.abort(new Error(`not a byte in ${idleMs / 1000} s`))
  })
  try {
    return await attempt(AbortSignal.any([signal, silence.signal]), pulse)
  } catch (error) {
    // An aborted transfer fails with the transport's own words; ours say why it was aborted.
    signal.throwIfAborted()
    silence.signal.throwIfAborted()
    throw error
  } finally {
    unwatch()
  }
}

/** One line for a failure of the moment: its code or class, and what it said. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const code = (error as NodeJS.ErrnoException).code ?? (error.name === 'Error' ? '' : error.name)
  const text = error.message.split('\n')[0] ?? ''
  return !code || text.includes(code) ? text : `${code} ${text}`.trim()
}
