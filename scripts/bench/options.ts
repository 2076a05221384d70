// The flags of `pagestream bench serve`, named and defaulted as those of `vllm bench serve`.
import { parseArgs } from 'node:util'
import { z } from 'zod'

const text = { type: 'string' } as const
const flag = { type: 'boolean' } as const
const list = { type: 'string', multiple: true } as const

/** Flag -> [kind, help]. */
const flags = {
  backend: [text, 'openai (completions) | openai-chat; "vllm" means openai'],
  'base-url': [text, 'server, e.g. http://127.0.0.1:8000'],
  host: [text, 'host when --base-url is not given (127.0.0.1)'],
  port: [text, 'port when --base-url is not given (8000)'],
  endpoint: [text, 'path (/v1/completions, or /v1/chat/completions for openai-chat)'],
  model: [text, 'model name to ask for (the first that the server lists)'],
  'served-model-name': [text, 'name used in requests, if it differs from --model'],
  tokenizer: [text, 'label of the result; lengths are counted by the server'],
  'dataset-name': [text, 'random | prefix_repetition | sharegpt | custom'],
  'dataset-path': [text, 'ShareGPT JSON, or JSON lines with "prompt" (and "output_tokens")'],
  'num-prompts': [text, 'requests to send (1000)'],
  'request-rate': [text, 'requests per second; inf sends all at once (inf)'],
  burstiness: [text, '1 is a Poisson process, below 1 burstier (1)'],
  'max-concurrency': [text, 'requests in flight at most'],
  'random-input-len': [text, 'tokens per prompt (1024)'],
  'random-output-len': [text, 'tokens per answer (128)'],
  'random-prefix-len': [text, 'tokens of a prefix shared by all prompts (0)'],
  'random-range-ratio': [text, 'lengths are drawn from [l (1 - r), l (1 + r)] (0)'],
  'input-len': [text, 'sets the input length of any dataset that has one'],
  'output-len': [text, 'sets the output length of any dataset'],
  'prefix-repetition-prefix-len': [text, '(256)'],
  'prefix-repetition-suffix-len': [text, '(256)'],
  'prefix-repetition-num-prefixes': [text, '(10)'],
  'prefix-repetition-output-len': [text, '(128)'],
  'ignore-eos': [flag, 'ask for exactly the output length'],
  logprobs: [text, 'log-probabilities per token to ask for'],
  temperature: [text, '(0)'],
  'top-p': [text, ''],
  'top-k': [text, ''],
  'min-p': [text, ''],
  'frequency-penalty': [text, ''],
  'presence-penalty': [text, ''],
  'repetition-penalty': [text, ''],
  'extra-body': [text, 'JSON merged into every request body'],
  header: [list, 'Name=Value, may be repeated'],
  seed: [text, 'seed of prompts and arrival times (0)'],
  'num-warmups': [text, 'requests sent before the clock starts (0)'],
  'ready-check-timeout-sec': [text, 'wait for the server; 0 does not ask (600)'],
  'request-id-prefix': [text, 'x-request-id of request i is prefix + i'],
  goodput: [list, 'objectives in ms, e.g. --goodput ttft:200 tpot:50'],
  'percentile-metrics': [text, 'ttft,tpot,itl,e2el'],
  'metric-percentiles': [text, '(99)'],
  'save-result': [flag, 'write the JSON result'],
  'save-detailed': [flag, 'with per-request lengths, times, texts and errors'],
  'append-result': [flag, 'append a line to the result file'],
  'result-dir': [text, ''],
  'result-filename': [text, ''],
  metadata: [list, 'KEY=VALUE kept in the result'],
  label: [text, 'prefix of the result file name'],
  'disable-tqdm': [flag, 'no progress line'],
  insecure: [flag, 'accept any TLS certificate'],
  help: [flag, 'this text'],
} as const

const count = z.coerce.number().int().positive()
const natural = z.coerce.number().int().nonnegative()
const positive = z
  .string()
  .transform((s) => (s === 'inf' ? Number.POSITIVE_INFINITY : Number(s)))
  .pipe(z.number().positive())

const Options = z.object({
  backend: z.enum(['openai', 'openai-chat', 'vllm']).default('openai'),
  'base-url': z.url().optional(),
  host: z.string().default('127.0.0.1'),
  port: count.default(8000),
  endpoint: z.string().optional(),
  model: z.string().optional(),
  'served-model-name': z.string().optional(),
  tokenizer: z.string().optional(),
  'dataset-name': z.enum(['random', 'prefix_repetition', 'sharegpt', 'custom']).default('random'),
  'dataset-path': z.string().optional(),
  'num-prompts': count.default(1000),
  'request-rate': positive.default(Number.POSITIVE_INFINITY),
  burstiness: z.coerce.number().positive().default(1),
  'max-concurrency': count.optional(),
  'random-input-len': count.default(1024),
  'random-output-len': count.default(128),
  'random-prefix-len': natural.default(0),
  'random-range-ratio': z.coerce.number().min(0).lt(1).default(0),
  'input-len': count.optional(),
  'output-len': count.optional(),
  'prefix-repetition-prefix-len': count.default(256),
  'prefix-repetition-suffix-len': count.default(256),
  'prefix-repetition-num-prefixes': count.default(10),
  'prefix-repetition-output-len': count.default(128),
  'ignore-eos': z.boolean().default(false),
  logprobs: natural.optional(),
  temperature: z.coerce.number().min(0).default(0),
  'top-p': z.coerce.number().optional(),
  'top-k': z.coerce.number().optional(),
  'min-p': z.coerce.number().optional(),
  'frequency-penalty': z.coerce.number().optional(),
  'presence-penalty': z.coerce.number().optional(),
  'repetition-penalty': z.coerce.number().optional(),
  'extra-body': z
    .string()
    .transform((s) => JSON.parse(s) as Record<string, unknown>)
    .optional(),
  header: z.array(z.string().includes('=', { error: 'expected Name=Value' })).default([]),
  seed: natural.default(0),
  'num-warmups': natural.default(0),
  'ready-check-timeout-sec': natural.default(600),
  'request-id-prefix': z.string().default('bench-'),
  goodput: z
    .array(z.string().regex(/^(ttft|tpot|e2el):[\d.]+$/, { error: 'expected ttft:MS, tpot:MS or e2el:MS' }))
    .default([]),
  'percentile-metrics': z
    .string()
    .default('ttft,tpot,itl')
    .transform((s) => s.split(','))
    .pipe(z.array(z.enum(['ttft', 'tpot', 'itl', 'e2el']))),
  'metric-percentiles': z
    .string()
    .default('99')
    .transform((s) => s.split(',').map(Number))
    .pipe(z.array(z.number().min(0).max(100))),
  'save-result': z.boolean().default(false),
  'save-detailed': z.boolean().default(false),
  'append-result': z.boolean().default(false),
  'result-dir': z.string().default('.'),
  'result-filename': z.string().optional(),
  metadata: z.array(z.string().includes('=', { error: 'expected KEY=VALUE' })).default([]),
  label: z.string().optional(),
  'disable-tqdm': z.boolean().default(false),
  insecure: z.boolean().default(false),
})
export type Options = z.infer<typeof Options>

/** null when the user asked for --help. Throws an Error whose message names the flag. */
export function parseOptions(argv: string[]): Options | null {
  // vLLM takes several values after one --goodput, --header or --metadata; parseArgs wants the flag before each.
  const args: string[] = []
  let multiple = ''
  for (const arg of argv) {
    if (arg.startsWith('--')) multiple = /^--(goodput|header|metadata)$/.test(arg) ? arg : ''
    else if (multiple && args.at(-1) !== multiple) args.push(multiple)
    args.push(arg)
  }
  const kinds = Object.fromEntries(Object.entries(flags).map(([name, [kind]]) => [name, kind]))
  const { values } = parseArgs({ args, options: kinds, strict: true })
  if (values.help) return null
  const parsed = Options.safeParse(values)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!
    throw new Error(`--${issue.path[0]?.toString()}: ${issue.message}`)
  }
  return parsed.data
}

export function help(): string {
  const rows = Object.entries(flags).map(([name, [, text]]) => `  --${name.padEnd(32)}${text}`)
  return `pagestream bench serve: load an OpenAI-compatible server and report throughput and latency\n\n${rows.join('\n')}\n`
}
