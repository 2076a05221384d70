// `pagestream bench throughput`: how many tokens per second the engine computes when all prompts are there at once. The
// flags, the printed lines and the result keys are those of `vllm bench throughput`.
import { writeFile } from 'node:fs/promises'
import type { Clock } from '../../queue/clock.ts'
import { type Flag, keyOf } from '../cli/flags.ts'
import { type LLM, SamplingParams } from '../llm.ts'
import { loadDataset, type Sample } from './dataset.ts'
import { offlineHelp, parseOffline, withEngine } from './offline.ts'
import { checkOptions, flags as serveFlags } from './options.ts'

/** Of the flags of bench serve, those that say what is sent. */
const isDataset = ({ name }: Flag) =>
  /^--(dataset|num-prompts|random|input-len|output-len|prefix-repetition|sharegpt|custom|seed)/.test(name)
const flags: Flag[] = [
  ...serveFlags.filter(isDataset),
  { name: '--n', kind: 'integer', help: 'answers per prompt (1)' },
  { name: '--temperature', kind: 'number', help: '(1)' },
]

export const throughputHelp = () =>
  offlineHelp('pagestream bench throughput [MODEL] [flags]', 'Throughput of the engine alone.', flags)

export async function benchThroughput(
  argv: string[],
  clock: Clock,
  print: (text: string) => void = (text) => process.stdout.write(text),
): Promise<number> {
  const { values, engineOptions } = parseOffline(argv, flags)
  const names = serveFlags.filter(isDataset).map(keyOf)
  const options = checkOptions(Object.fromEntries(Object.entries(values).filter(([name]) => names.includes(name))))
  const { n = 1, temperature = 1 } = values as { n?: number; temperature?: number }
  const path = values.recordSteps as string | undefined
  return withEngine(engineOptions, path, clock, async (llm) => {
    const samples = await loadDataset(options, llm.tokenize, llm.detokenize)
    const params = samples.map(({ outputTokens }) => {
      return new SamplingParams({ n, temperature, max_tokens: outputTokens, ignore_eos: true })
    })
    const begun = clock.monotonic()
    const outputs = await llm.generate(samples.map(promptOf), params)
    const elapsed = (clock.monotonic() - begun) / 1000
    const result = summarizeThroughput(outputs, elapsed)
    print(renderThroughput(result))
    const file = values.outputJson as string | undefined
    if (file !== undefined) await writeFile(file, `${JSON.stringify(result, null, 4)}\n`)
    return 0
  })
}

const promptOf = ({ prompt }: Sample) => (typeof prompt === 'string' ? prompt : { prompt_token_ids: prompt })

type Outputs = Awaited<ReturnType<LLM['generate']>>

export function summarizeThroughput(outputs: Outputs, elapsed: number) {
  const input = outputs.reduce((sum, { prompt_token_ids }) => sum + prompt_token_ids.length, 0)
  const output = outputs.flatMap((each) => each.outputs).reduce((sum, { token_ids }) => sum + token_ids.length, 0)
  return {
    elapsed_time: elapsed,
    num_requests: outputs.length,
    total_num_tokens: input + output,
    requests_per_second: outputs.length / elapsed,
    tokens_per_second: (input + output) / elapsed,
    total_prompt_tokens: input,
    total_output_tokens: output,
    output_tokens_per_second: output / elapsed,
  }
}

export function renderThroughput(result: ReturnType<typeof summarizeThroughput>): string {
  const { requests_per_second: requests, tokens_per_second: tokens, output_tokens_per_second: output } = result
  return (
    `Throughput: ${requests.toFixed(2)} requests/s, ${tokens.toFixed(2)} total tokens/s, ` +
    `${output.toFixed(2)} output tokens/s\n` +
    `Total num prompt tokens:  ${result.total_prompt_tokens}\n` +
    `Total num output tokens:  ${result.total_output_tokens}\n`
  )
}
