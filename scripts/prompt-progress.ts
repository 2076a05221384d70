// The progress line of LLM.generate: prompts done and tokens per second, redrawn on a terminal; elsewhere (logs, CI) a
// plain line at the end of whatever takes longer than a moment.
import type { Clock } from '../queue/clock.ts'
import type { Usage } from '../queue/event.ts'
import type { Output } from './progress.ts'

const REDRAW_MS = 100
const MOMENT_MS = 2000
const WIDTH = 24

export function showPrompts(total: number, output: Output, clock: Clock) {
  const begun = clock.monotonic()
  let shown = Number.NEGATIVE_INFINITY
  let done = 0
  let input = 0
  let generated = 0

  function line(): string {
    const seconds = Math.max(0.001, (clock.monotonic() - begun) / 1000)
    const full = total === 0 ? WIDTH : Math.round((done / total) * WIDTH)
    const bar = '█'.repeat(full) + '░'.repeat(WIDTH - full)
    const rate = (tokens: number) => (tokens / seconds).toFixed(1)
    return `Processed prompts ${bar} ${done}/${total} in ${seconds.toFixed(1)} s, input ${rate(input)} toks/s, output ${rate(generated)} toks/s`
  }

  return {
    finished({ promptTokens, completionTokens }: Usage) {
      done++
      input += promptTokens
      generated += completionTokens
      if (!output.isTTY || clock.monotonic() - shown < REDRAW_MS) return
      shown = clock.monotonic()
      output.write(`\r\x1b[K${line().slice(0, (output.columns ?? 80) - 1)}`)
    },
    close() {
      if (output.isTTY) output.write(`\r\x1b[K${line().slice(0, (output.columns ?? 80) - 1)}\n`)
      else if (clock.monotonic() - begun > MOMENT_MS) output.write(`${line()}\n`)
    },
  }
}
