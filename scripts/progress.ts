// Shows how far a long step is: one line redrawn on a terminal, else a plain line every few seconds (logs, CI). Called by
// the commands that load models; `openSource` reports to what this returns.
import type { Progress } from '../engine/weights/source.ts'
import type { Clock } from '../queue/clock.ts'

export type Output = { write(text: string): unknown; isTTY?: boolean; columns?: number }

const redrawMs = 100
const lineMs = 3_000
/** A step this short needs no line in a log. */
const momentMs = 2_000
const barWidth = 24

/** `title` is what is going on: "Loading org/name". */
export function showProgress(title: string, output: Output, clock: Clock): (progress: Progress) => void {
  const begun = clock.monotonic()
  let shown = output.isTTY ? Number.NEGATIVE_INFINITY : begun
  let isOver = false
  /** What the cache held already says nothing of the rate. */
  let had: number | undefined

  return function report({ file, bytes, total }) {
    if (isOver) return
    const now = clock.monotonic()
    had ??= bytes
    isOver = bytes >= total
    const isDue = now - shown >= (output.isTTY ? redrawMs : lineMs)
    if (isOver ? !output.isTTY && now - begun < momentMs : !isDue) return
    shown = now
    const seconds = (now - begun) / 1000
    const rate = seconds > 0 ? (bytes - had) / seconds : 0
    const figures = `${size(bytes)} of ${size(total)}`
    if (!output.isTTY) return void output.write(`${title}: ${figures}, ${size(rate)}/s\n`)
    const left = rate > 0 ? ` ${Math.ceil((total - bytes) / rate)} s left` : ''
    const detail = isOver ? ` in ${seconds.toFixed(1)} s` : `${left}  ${file}`
    const text = `${title} ${bar(bytes / total)} ${figures}, ${size(rate)}/s${detail}`
    output.write(`\r\x1b[K${text.slice(0, (output.columns ?? 80) - 1)}${isOver ? '\n' : ''}`)
  }
}

function bar(share: number): string {
  const full = Math.round(share * barWidth)
  return '█'.repeat(full) + '░'.repeat(barWidth - full)
}

function size(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.round(bytes / 1e3)} kB`
}
