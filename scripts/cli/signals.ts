// SIGTERM and SIGINT: while a server starts they end it; when it serves the first begins a drain and a second one ends
// the process at once.

/** npm and terminals deliver one Ctrl-C twice within a moment. */
const echoMs = 500

export type Signals = {
  /** From now on a signal means a drain. */
  serving(): void
  /** Resolves at the first signal after serving(). */
  stopped: Promise<void>
}

export function watchSignals(log: (line: string) => void): Signals {
  const stopped = Promise.withResolvers<void>()
  let isServing = false
  let first: number | null = null
  const onSignal = (signal: NodeJS.Signals) => {
    if (isServing && first === null) {
      first = performance.now()
      log(`${signal}: finishing what runs; once more to stop at once`)
      stopped.resolve()
    } else if (first === null || performance.now() - first > echoMs) {
      log(`${signal}: stopped at once`)
      process.exit(1)
    }
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  const serving = () => {
    isServing = true
  }
  return { serving, stopped: stopped.promise }
}
