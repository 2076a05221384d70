// SIGTERM and SIGINT: the first begins a drain, a second one ends the process at once.

/** npm and terminals deliver one Ctrl-C twice within a moment. */
const echoMs = 500

/** Resolves at the first signal; from then on another one exits. */
export function firstSignal(log: (line: string) => void): Promise<void> {
  return new Promise((resolve) => {
    let first = 0
    const onSignal = (signal: NodeJS.Signals) => {
      if (first === 0) {
        first = performance.now()
        log(`${signal}: finishing what runs; once more to stop at once`)
        resolve()
      } else if (performance.now() - first > echoMs) {
        log(`${signal}: stopped at once`)
        process.exit(1)
      }
    }
    process.on('SIGTERM', onSignal)
    process.on('SIGINT', onSignal)
  })
}
