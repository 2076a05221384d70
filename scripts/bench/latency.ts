// `pagestream bench latency`: how long one batch of equal prompts takes from beginning to end, again and again. The flags,
// the printed lines and the result keys are those of `vllm bench latency`.
import { writeFile } from 'node:fs/promises'
import { z } from 'zod'
import type { Clock } from '../../queue/clock.ts'
import { type Flag, keyOf, UsageError } from '../cli/flags.ts'
import { SamplingParams } from '../llm.ts'
import { offlineHelp, parseOffline, withEngine } from './offline.ts'
import { Random } from './random.ts'
import { percentile } from './report.ts'

const flags: Flag[] = [
  { name: '--input-len', kind: 'integer', help: 'tokens per prompt (32)' },
  { name: '--output-len', kind: 'integer', help: 'tokens per answer (128)' },
  { name: '--batch-size', kind: 'integer', help: 'prompts at once (8)' },
  { name: '--n', kind: 'integer', help: 'answers per prompt (1)' },
  { name: '--num-iters-warmup', kind: 'integer', help: 'batches before the clock starts (10)' },
  { name: '--num-iters', kind: 'integer', help: 'batches measured (30)' },
  { name: '--seed', kind: 'integer', help: 'seed of the prompts (0)' },
]
const count = z.int().positive()
const Options = z.object({
  inputLen: count.default(32),
  outputLen: count.default(128),
  batchSize: count.default(8),
  n: count.default(1),
  numItersWarmup: z.int().min(0).default(10),
  numIters: count.default(30),
  seed: z.int().min(0).default(0),
})

export const latencyHelp = () =>
  offlineHelp('pagestream bench latency [MODEL] [flags]', 'Latency of one batch through the engine alone.', flags)

export async function benchLatency(
  argv: string[],
  clock: Clock,
  print: (text: string) => void = (text) => process.stdout.write(text),
): Promise<number> {
  const { values, engineOptions } = parseOffline(argv, flags)
  const { inputLen, outputLen, batchSize, n, numItersWarmup, numIters, seed } = checkOptions(values)
  const params = new SamplingParams({ n, temperature: 1, max_tokens: outputLen, ignore_eos: true })
  const random = new Random(seed)
  return withEngine(engineOptions, values.recordSteps as string | undefined, clock, async (llm) => {
    const vocabularySize = await llm.vocabularySize()
    const iterate = async () => {
      // New prompts every time: those of the last batch are in the prefix cache.
      const ids = () => Array.from({ length: inputLen }, () => random.integer(0, vocabularySize - 1))
      const prompts = Array.from({ length: batchSize }, () => ({ prompt_token_ids: ids() }))
      const begun = clock.monotonic()
      await llm.generate(prompts, params, { use_tqdm: false })
      return (clock.monotonic() - begun) / 1000
    }
    for (let i = 0; i < numItersWarmup; i++) await iterate()
    const latencies: number[] = []
    for (let i = 0; i < numIters; i++) latencies.push(await iterate())
    const result = summarizeLatency(latencies)
    print(renderLatency(result))
    const file = values.outputJson as string | undefined
    if (file !== undefined) await writeFile(file, `${JSON.stringify(result, null, 4)}\n`)
    return 0
  })
}

function checkOptions(values: Record<string, unknown>): z.infer<typeof Options> {
  const parsed = Options.safeParse(values)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  throw new UsageError(`${flags.find((flag) => keyOf(flag) === issue.path[0])?.name}: ${issue.message}`)
}

export function summarizeLatency(latencies: number[]) {
  const sorted = latencies.toSorted((a, b) => a - b)
  const percentages = [10, 25, 50, 75, 90, 99]
  return {
    avg_latency: latencies.reduce((sum, each) => sum + each, 0) / latencies.length,
    latencies,
    percentiles: Object.fromEntries(percentages.map((p) => [String(p), percentile(sorted, p)])),
  }
}

export function renderLatency({ avg_latency: average, percentiles }: ReturnType<typeof summarizeLatency>): string {
  const rows = Object.entries(percentiles).map(([p, value]) => `${p}% percentile latency: ${value} seconds\n`)
  return `Avg latency: ${average} seconds\n${rows.join('')}`
}
