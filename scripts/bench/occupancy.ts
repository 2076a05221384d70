// Draws how full the engine was over a run: sequences running and waiting, and the KV cache in use, as one SVG.
//
//   pagestream bench throughput --record-steps run.jsonl && node scripts/bench/occupancy.ts run.jsonl > run.svg
//   node scripts/bench/occupancy.ts --watch http://127.0.0.1:8000/metrics --seconds 60 > run.svg
//
// The second form reads a server's gauges ten times a second; vLLM's have the same names.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { request } from 'undici'
import { type Clock, systemClock } from '../../queue/clock.ts'
import { type Flag, parseFlags, UsageError } from '../cli/flags.ts'

/** `seconds` since the beginning; `kvUsage` from 0 to 1. */
export type Sample = { seconds: number; running: number; waiting: number; kvUsage: number }

const WATCH_MS = 100
const WIDTH = 960
const PANEL = 140
const MARGIN = { left: 60, right: 28, top: 36, gap: 48 }

export function parseRecord(text: string): Sample[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const { seconds, stepSequences, waiting, kvUsage } = JSON.parse(line)
      return { seconds, running: stepSequences, waiting, kvUsage }
    })
}

/** The gauges of one scrape, over all engines that it shows. */
export function parseMetrics(text: string, seconds: number): Sample {
  const values = (name: string) =>
    [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].map((match) => Number(match[1]))
  const sum = (list: number[]) => list.reduce((total, value) => total + value, 0)
  const usage = values('vllm:kv_cache_usage_perc')
  return {
    seconds,
    running: sum(values('vllm:num_requests_running')),
    waiting: sum(values('vllm:num_requests_waiting')),
    kvUsage: usage.length === 0 ? 0 : sum(usage) / usage.length,
  }
}

/** Means over time: each sample holds until the next one. */
export function summarize(samples: readonly Sample[], seats: number): { occupancy: number; kvUsage: number } {
  let [time, running, kv] = [0, 0, 0]
  for (let i = 0; i + 1 < samples.length; i++) {
    const { seconds, running: count, kvUsage } = samples[i]!
    const held = samples[i + 1]!.seconds - seconds
    time += held
    running += held * count
    kv += held * kvUsage
  }
  return time === 0 ? { occupancy: 0, kvUsage: 0 } : { occupancy: running / time / seats, kvUsage: kv / time }
}

type Panel = { title: string; of: 'running' | 'waiting' | 'kvUsage'; highest: number; color: string }

/** `seats`: the most sequences that may run; that of the run itself when not known. */
export function draw(samples: readonly Sample[], seats = most(samples, 'running')): string {
  if (samples.length < 2) throw new UsageError('the record holds fewer than two steps: nothing to draw')
  const { occupancy, kvUsage } = summarize(samples, seats)
  const waiting = most(samples, 'waiting')
  const panels: Panel[] = [
    {
      of: 'running',
      highest: seats,
      color: '#2563eb',
      title: `Batch: ${percent(occupancy)} of ${seats} places on average`,
    },
    { of: 'waiting', highest: Math.max(1, waiting), color: '#d97706', title: `Waiting: at most ${waiting} sequences` },
    { of: 'kvUsage', highest: 1, color: '#059669', title: `KV cache in use: ${percent(kvUsage)} on average` },
  ]
  const height = MARGIN.top + panels.length * (PANEL + MARGIN.gap)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${height}" fill="white"/>`,
    ...panels.map((panel, i) => drawPanel(samples, panel, MARGIN.top + i * (PANEL + MARGIN.gap))),
    drawTimes(samples, height - 14),
    '</svg>',
    '',
  ].join('\n')
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`

function most(samples: readonly Sample[], of: Panel['of']): number {
  return samples.reduce((highest, sample) => Math.max(highest, sample[of]), 0)
}

function drawPanel(samples: readonly Sample[], { title, of, highest, color }: Panel, top: number): string {
  const y = (value: number) => top + PANEL * (1 - value / highest)
  const rows = [0, 0.5, 1].map((share) => {
    const at = y(share * highest).toFixed(1)
    const label = of === 'kvUsage' ? percent(share) : String(share * highest)
    return (
      `<line x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${at}" y2="${at}" stroke="#e5e7eb"/>` +
      `<text x="${MARGIN.left - 6}" y="${at}" dy="4" text-anchor="end" fill="#6b7280">${label}</text>`
    )
  })
  // A staircase: what a step found holds until the next.
  const x = scale(samples)
  const stairs = samples.map((sample) => `H${x(sample.seconds).toFixed(1)}V${y(sample[of]).toFixed(1)}`).join('')
  const path = `M${MARGIN.left} ${top + PANEL}${stairs}V${top + PANEL}Z`
  return [
    `<text x="${MARGIN.left}" y="${top - 10}" font-size="14">${title}</text>`,
    ...rows,
    `<path d="${path}" fill="${color}" fill-opacity="0.25" stroke="${color}"/>`,
  ].join('\n')
}

function drawTimes(samples: readonly Sample[], y: number): string {
  const x = scale(samples)
  const begin = samples[0]!.seconds
  const length = samples.at(-1)!.seconds - begin
  const marks = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const label = `${(share * length).toFixed(length < 10 ? 2 : 0)} s`
    const at = x(begin + share * length).toFixed(1)
    return `<text x="${at}" y="${y}" text-anchor="middle" fill="#6b7280">${label}</text>`
  })
  return marks.join('\n')
}

/** Seconds -> where they stand. */
function scale(samples: readonly Sample[]): (seconds: number) => number {
  const begin = samples[0]!.seconds
  const length = samples.at(-1)!.seconds - begin || 1
  return (seconds) => MARGIN.left + ((seconds - begin) / length) * (WIDTH - MARGIN.left - MARGIN.right)
}

async function watch(url: string, seconds: number, clock: Clock): Promise<Sample[]> {
  const samples: Sample[] = []
  const begun = clock.monotonic()
  for (let now = 0; now < seconds; now = (clock.monotonic() - begun) / 1000) {
    const { statusCode, body } = await request(url)
    if (statusCode !== 200) throw new Error(`${url} answers ${statusCode}`)
    samples.push(parseMetrics(await body.text(), now))
    await clock.sleep(WATCH_MS)
  }
  return samples
}

const flags: Flag[] = [
  { name: '--watch', kind: 'string', help: 'URL of /metrics' },
  { name: '--seconds', kind: 'number', help: 'how long to watch' },
  { name: '--max-num-seqs', kind: 'integer', help: 'places of the batch' },
]

async function main(argv: string[]): Promise<void> {
  const { values, positional } = parseFlags(flags, argv, {})
  const { watch: url, seconds = 60, maxNumSeqs } = values as { watch?: string; seconds?: number; maxNumSeqs?: number }
  if ((url === undefined) === (positional[0] === undefined))
    throw new UsageError('name a record of steps, or --watch URL')
  const samples = url ? await watch(url, seconds, systemClock) : parseRecord(readFileSync(positional[0]!, 'utf8'))
  process.stdout.write(draw(samples, maxNumSeqs))
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  main(process.argv.slice(2)).catch((error: Error) => {
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  })
}
