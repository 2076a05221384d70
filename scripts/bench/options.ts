// The flags of `pagestream bench serve`, named and defaulted as those of `vllm bench serve`.
import { z } from 'zod'
import { type Flag, parseFlags, UsageError } from '../cli/flags.ts'
import { formatHelp } from '../cli/help.ts'

const table: [name: string, kind: Flag['kind'], help: string][] = [
  ['backend', 'string', 'openai (completions) | openai-chat; "vllm" means openai'],
  ['base-url', 'string', 'server, e.g. http://127.0.0.1:8000'],
  ['host', 'string', 'host when --base-url is not given (127.0.0.1)'],
  ['port', 'integer', 'port when --base-url is not given (8000)'],
  ['endpoint', 'string', 'path (/v1/completions, or /v1/chat/completions for openai-chat)'],
  ['model', 'string', 'model name to ask for (the first that the server lists)'],
  ['served-model-name', 'string', 'name used in requests, if it differs from --model'],
  ['tokenizer', 'string', 'label of the result; lengths are counted by the server'],
  ['dataset-name', 'string', 'random | prefix_repetition | sharegpt | custom'],
  ['dataset-path', 'string', 'ShareGPT JSON, or JSON lines with "prompt" (and "output_tokens")'],
  ['num-prompts', 'integer', 'requests to send (1000)'],
  ['request-rate', 'number', 'requests per second; inf sends all at once (inf)'],
  ['burstiness', 'number', '1 is a Poisson process, below 1 burstier (1)'],
  ['ramp-up-strategy', 'string', 'linear | exponential: the rate grows instead of being --request-rate'],
  ['ramp-up-start-rps', 'number', 'rate of the first request (1)'],
  ['ramp-up-end-rps', 'number', 'rate of the last request (10)'],
  ['max-concurrency', 'integer', 'requests in flight at most'],
  ['random-input-len', 'integer', 'tokens per prompt (1024)'],
  ['random-output-len', 'integer', 'tokens per answer (128)'],
  ['random-prefix-len', 'integer', 'tokens of a prefix shared by all prompts (0)'],
  ['random-range-ratio', 'number', 'lengths are drawn from [l (1 - r), l (1 + r)] (0)'],
  ['input-len', 'integer', 'sets the input length of any dataset that has one'],
  ['output-len', 'integer', 'sets the output length of any dataset'],
  ['prefix-repetition-prefix-len', 'integer', '(256)'],
  ['prefix-repetition-suffix-len', 'integer', '(256)'],
  ['prefix-repetition-num-prefixes', 'integer', '(10)'],
  ['prefix-repetition-output-len', 'integer', '(128)'],
  ['sharegpt-output-len', 'integer', 'output length of ShareGPT prompts (that of the recorded answer)'],
  ['custom-output-len', 'integer', 'output length of custom prompts without "output_tokens" (256)'],
  ['ignore-eos', 'boolean', 'ask for exactly the output length'],
  ['logprobs', 'integer', 'log-probabilities per token to ask for'],
  ['temperature', 'number', '(0)'],
  ['top-p', 'number', ''],
  ['top-k', 'integer', ''],
  ['min-p', 'number', ''],
  ['frequency-penalty', 'number', ''],
  ['presence-penalty', 'number', ''],
  ['repetition-penalty', 'number', ''],
  ['extra-body', 'json', 'JSON merged into every request body'],
  ['header', 'list', 'Name=Value, may be repeated'],
  ['seed', 'integer', 'seed of prompts and arrival times (0)'],
  ['num-warmups', 'integer', 'requests sent before the clock starts (0)'],
  ['ready-check-timeout-sec', 'integer', 'wait for the server; 0 does not ask (600)'],
  ['request-id-prefix', 'string', 'x-request-id of request i is prefix + i'],
  ['goodput', 'list', 'objectives in ms, e.g. --goodput ttft:200 tpot:50'],
  ['percentile-metrics', 'string', 'ttft,tpot,itl,e2el'],
  ['metric-percentiles', 'string', '(99)'],
  ['save-result', 'boolean', 'write the JSON result'],
  ['save-detailed', 'boolean', 'with per-request lengths, times, texts and errors'],
  ['append-result', 'boolean', 'append a line to the result file'],
  ['result-dir', 'string', ''],
  ['result-filename', 'string', ''],
  ['metadata', 'list', 'KEY=VALUE kept in the result'],
  ['label', 'string', 'prefix of the result file name'],
  ['disable-tqdm', 'boolean', 'no progress line'],
  ['insecure', 'boolean', 'accept any TLS certificate'],
]
/** Keyed by their names: --num-prompts is values['num-prompts']. */
export const flags: Flag[] = table.map(([name, kind, help]) => ({ name: `--${name}`, key: name, kind, help }))

const count = z.number().int().positive()
const natural = z.number().int().nonnegative()
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
  'request-rate': z
    .union([z.number().positive(), z.literal(Number.POSITIVE_INFINITY)])
    .default(Number.POSITIVE_INFINITY),
  burstiness: z.number().positive().default(1),
  'ramp-up-strategy': z.enum(['linear', 'exponential']).optional(),
  'ramp-up-start-rps': z.number().positive().default(1),
  'ramp-up-end-rps': z.number().positive().default(10),
  'max-concurrency': count.optional(),
  'random-input-len': count.default(1024),
  'random-output-len': count.default(128),
  'random-prefix-len': natural.default(0),
  'random-range-ratio': z.number().min(0).lt(1).default(0),
  'input-len': count.optional(),
  'output-len': count.optional(),
  'prefix-repetition-prefix-len': count.default(256),
  'prefix-repetition-suffix-len': count.default(256),
  'prefix-repetition-num-prefixes': count.default(10),
  'prefix-repetition-output-len': count.default(128),
  'sharegpt-output-len': count.optional(),
  'custom-output-len': count.default(256),
  'ignore-eos': z.boolean().default(false),
  logprobs: natural.optional(),
  temperature: z.number().min(0).default(0),
  'top-p': z.number().optional(),
  'top-k': z.number().optional(),
  'min-p': z.number().optional(),
  'frequency-penalty': z.number().optional(),
  'presence-penalty': z.number().optional(),
  'repetition-penalty': z.number().optional(),
  'extra-body': z.record(z.string(), z.unknown()).optional(),
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

/** @throws UsageError naming the flag */
export function parseOptions(argv: string[]): Options {
  const { values, positional } = parseFlags(flags, argv, {})
  if (positional[0]) throw new UsageError(`"${positional[0]}" belongs to no flag`)
  return checkOptions(values)
}

/** Parsed flags and the defaults of the rest. @throws UsageError naming the flag */
export function checkOptions(values: Record<string, unknown>): Options {
  const parsed = Options.safeParse(values)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  throw new UsageError(`--${issue.path[0]?.toString()}: ${issue.message}`)
}

export function help(): string {
  const summary = 'Loads an OpenAI-compatible server and reports throughput and latency, as vllm bench serve does.'
  return formatHelp('pagestream bench serve [flags]', summary, [{ title: 'Flags', flags }])
}
