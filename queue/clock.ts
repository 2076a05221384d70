// Time as an argument. Everything that waits or measures takes a Clock, so that the simulation can run hours in
// milliseconds and in a fixed order. This file is the only one that touches the process's own clock and timers.

export type Clock = {
  /** Unix time in ms; only for what a human or a client reads. */
  now(): number
  /** ms since some fixed moment; never jumps. All deadlines and intervals are measured with it. */
  monotonic(): number
  /** Rejects with the signal's reason when it aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** Returns a function that stops the repetition. */
  every(ms: number, run: () => void): () => void
  /** Returns a function that calls the run off. */
  after(ms: number, run: () => void): () => void
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const stop = () => {
        clearTimeout(timer)
        reject(signal?.reason)
      }
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', stop)
        resolve()
      }, ms)
      signal?.addEventListener('abort', stop, { once: true })
    }),
  every: (ms, run) => {
    const timer = setInterval(run, ms)
    return () => clearInterval(timer)
  },
  after: (ms, run) => {
    const timer = setTimeout(run, ms)
    return () => clearTimeout(timer)
  },
}
