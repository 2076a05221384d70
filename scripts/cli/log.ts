// What the commands tell: lines for the person who started them, JSON records for whoever collects logs. Both go to
// stderr; stdout is for results.
import { type Logger, pino } from 'pino'
import { systemClock } from '../../queue/clock.ts'
import { showProgress } from '../progress.ts'

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const

export function log(line: string): void {
  process.stderr.write(`pagestream: ${line}\n`)
}

export function createLog(name: string, level: string): Logger {
  return pino({ name, level }, pino.destination({ fd: 2, sync: true }))
}

/** One progress bar per stage of loading a model. */
export function loadingProgress(model: string): (stage: 'download' | 'load', progress: Progress) => void {
  const titles = { download: `Downloading ${model}`, load: `Loading ${model}` }
  const bars = new Map<string, (progress: Progress) => void>()
  return (stage, progress) => {
    const bar = bars.get(stage) ?? showProgress(titles[stage], process.stderr, systemClock)
    bars.set(stage, bar)
    bar(progress)
  }
}

type Progress = Parameters<ReturnType<typeof showProgress>>[0]
