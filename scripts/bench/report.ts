// Measurements -> the result object and the printed block of `vllm bench serve`, key for key.
import type { Measurement } from './client.ts'
import type { Options } from './options.ts'

const titles = {
  ttft: 'Time to First Token',
  tpot: 'Time per Output Token (excl. 1st token)',
  itl: 'Inter-token Latency',
  e2el: 'End-to-end Latency',
}
type Metric = keyof typeof titles

export type Result = Record<string, unknown>

const mean = (values: number[]) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : 0)
const std = (values: number[]) => {
  const m = mean(values)
  return Math.sqrt(mean(values.map((v) => (v - m) ** 2)))
}
/** Linear interpolation, as numpy. */
export function percentile(sorted: number[], p: number): number {
  if (sorted.length === 0) return 0
  const at = ((sorted.length - 1) * p) / 100
  const low = Math.floor(at)
  return sorted[low]! + (at - low) * ((sorted[low + 1] ?? sorted[low]!) - sorted[low]!)
}

const tpotOf = (m: Measurement) => (m.outputTokens > 1 ? (m.latency - m.ttft) / (m.outputTokens - 1) : 0)

/** Most tokens received, and most requests in flight, in any one second. */
function peaks(done: Measurement[], duration: number): { tokens: number; concurrent: number } {
  const tokens = new Array<number>(Math.ceil(duration) + 1).fill(0)
  const concurrent = [...tokens]
  const bump = (array: number[], second: number) => {
    const slot = Math.min(Math.floor(second), array.length - 1)
    array[slot] = array[slot]! + 1
  }
  for (const m of done) {
    let time = m.start + m.ttft
    bump(tokens, time)
    for (const gap of m.itl) {
      time += gap
      bump(tokens, time)
    }
    for (let s = Math.floor(m.start); s <= Math.floor(m.start + m.latency); s++) bump(concurrent, s)
  }
  return { tokens: Math.max(...tokens), concurrent: Math.max(...concurrent) }
}

export function summarize(options: Options, model: string, all: Measurement[], duration: number, date: string): Result {
  const done = all.filter((m) => m.success)
  const input = done.reduce((sum, m) => sum + m.inputTokens, 0)
  const output = done.reduce((sum, m) => sum + m.outputTokens, 0)
  const peak = peaks(done, duration)
  const series: Record<Metric, number[]> = {
    ttft: done.map((m) => m.ttft),
    tpot: done.filter((m) => m.outputTokens > 1).map(tpotOf),
    itl: done.flatMap((m) => m.itl),
    e2el: done.map((m) => m.latency),
  }
  const result: Result = {
    date,
    backend: options.backend,
    label: options.label ?? null,
    model_id: model,
    tokenizer_id: options.tokenizer ?? model,
    num_prompts: options['num-prompts'],
    ...Object.fromEntries(options.metadata.map((pair) => pair.split(/=(.*)/s, 2))),
    request_rate: Number.isFinite(options['request-rate']) ? options['request-rate'] : 'inf',
    burstiness: options.burstiness,
    max_concurrency: options['max-concurrency'] ?? null,
    duration,
    completed: done.length,
    failed: all.length - done.length,
    total_input_tokens: input,
    total_output_tokens: output,
    request_throughput: done.length / duration,
    request_goodput: options.goodput.length ? good(options, done) / duration : null,
    output_throughput: output / duration,
    total_token_throughput: (input + output) / duration,
    max_output_tokens_per_s: peak.tokens,
    max_concurrent_requests: peak.concurrent,
  }
  for (const [name, values] of Object.entries(series)) {
    const sorted = values.map((v) => v * 1000).sort((a, b) => a - b)
    result[`mean_${name}_ms`] = mean(sorted)
    result[`median_${name}_ms`] = percentile(sorted, 50)
    result[`std_${name}_ms`] = std(sorted)
    for (const p of options['metric-percentiles']) result[`p${p}_${name}_ms`] = percentile(sorted, p)
  }
  if (options['save-detailed'])
    Object.assign(result, {
      input_lens: all.map((m) => m.inputTokens),
      output_lens: all.map((m) => m.outputTokens),
      ttfts: all.map((m) => m.ttft),
      itls: all.map((m) => m.itl),
      start_times: all.map((m) => m.start),
      generated_texts: all.map((m) => m.text),
      errors: all.map((m) => m.error),
    })
  return result
}

function good(options: Options, done: Measurement[]): number {
  const limits = options.goodput.map((pair) => pair.split(':') as ['ttft' | 'tpot' | 'e2el', string])
  const value = { ttft: (m: Measurement) => m.ttft, tpot: tpotOf, e2el: (m: Measurement) => m.latency }
  return done.filter((m) => limits.every(([name, ms]) => value[name](m) * 1000 <= Number(ms))).length
}

export function render(options: Options, result: Result): string {
  const row = (title: string, value: unknown) =>
    `${title.padEnd(40)} ${typeof value === 'number' ? (Number.isInteger(value) ? value : value.toFixed(2)) : String(value)}`
  const rule = (title: string, fill: string) => {
    const left = Math.floor((50 - title.length) / 2)
    return fill.repeat(left) + title + fill.repeat(50 - title.length - left)
  }
  const lines = [
    rule(' Serving Benchmark Result ', '='),
    row('Successful requests:', result.completed),
    row('Failed requests:', result.failed),
    ...(options['max-concurrency'] ? [row('Maximum request concurrency:', options['max-concurrency'])] : []),
    ...(Number.isFinite(options['request-rate'])
      ? [row('Request rate configured (RPS):', options['request-rate'])]
      : []),
    row('Benchmark duration (s):', result.duration),
    row('Total input tokens:', result.total_input_tokens),
    row('Total generated tokens:', result.total_output_tokens),
    row('Request throughput (req/s):', result.request_throughput),
    ...(result.request_goodput === null ? [] : [row('Request goodput (req/s):', result.request_goodput)]),
    row('Output token throughput (tok/s):', result.output_throughput),
    row('Peak output token throughput (tok/s):', result.max_output_tokens_per_s),
    row('Peak concurrent requests:', result.max_concurrent_requests),
    row('Total token throughput (tok/s):', result.total_token_throughput),
  ]
  for (const name of options['percentile-metrics']) {
    const label = name.toUpperCase()
    lines.push(
      rule(titles[name], '-'),
      row(`Mean ${label} (ms):`, result[`mean_${name}_ms`]),
      row(`Median ${label} (ms):`, result[`median_${name}_ms`]),
    )
    for (const p of options['metric-percentiles']) lines.push(row(`P${p} ${label} (ms):`, result[`p${p}_${name}_ms`]))
  }
  return [...lines, '='.repeat(50)].join('\n')
}
