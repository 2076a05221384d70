// What an engine can be told. One zod schema, vLLM's names and defaults; the CLI turns --kebab-case flags into these
// fields. Parsed once in main.ts (or by LLM), frozen, passed on as an argument; nothing else reads the environment.
import { z } from 'zod'

const optional = <T extends z.ZodType>(schema: T) => schema.nullable().default(null)
const positive = z.int().positive()

/** vLLM's keys. Guesses come from the sequence itself (scheduler/ngram.ts). */
const SpeculativeConfig = z
  .strictObject({
    method: z.literal('ngram', { error: 'must be "ngram": no other method is there' }),
    num_speculative_tokens: positive.max(32),
    prompt_lookup_max: positive.max(32).optional(),
    prompt_lookup_min: positive.max(32).optional(),
    disable_by_batch_size: positive.optional(),
  })
  .transform((given, context) => {
    const { prompt_lookup_max: max, prompt_lookup_min: min } = given
    const promptLookupMax = max ?? min ?? 5
    const promptLookupMin = min ?? promptLookupMax
    if (promptLookupMin > promptLookupMax) {
      const message = `is ${promptLookupMin}, more than prompt_lookup_max, ${promptLookupMax}`
      context.addIssue({ code: 'custom', path: ['prompt_lookup_min'], message, input: given })
    }
    return {
      numSpeculativeTokens: given.num_speculative_tokens,
      promptLookupMax,
      promptLookupMin,
      disableByBatchSize: given.disable_by_batch_size ?? null,
    }
  })

const Fields = z.strictObject({
  /** A folder, s3://bucket/prefix, or org/name of the Hugging Face hub. */
  model: z.string().min(1),
  /** Names the pool answers to; the first is the pool's own. `model` if none is given. */
  servedModelName: z.array(z.string().min(1).max(256)).default([]),
  /** Type of the weights in memory; auto: that of the checkpoint (bfloat16 for float16). */
  dtype: z.enum(['auto', 'float32', 'bfloat16']).default('auto'),
  /** dummy: random weights, always the same, for measuring; the model is a folder with a config.json. */
  loadFormat: z.enum(['auto', 'safetensors', 'dummy']).default('auto'),
  /** int8: weights of the layers per output, activations per token, made while loading; null: as dtype says. */
  quantization: optional(z.enum(['int8'])),
  /** Longest prompt plus answer; null: what the model allows and the KV cache holds. */
  maxModelLen: optional(positive),
  /** Sequences that run at the same time. */
  maxNumSeqs: positive.max(4096).default(256),
  /** Tokens of one step, over all sequences. */
  maxNumBatchedTokens: positive.default(2048),
  /** Prompts longer than this advance by at most this many tokens a step; 0: no such limit. */
  longPrefillTokenThreshold: z.int().min(0).default(0),
  /** Tokens of one KV block. */
  blockSize: z.literal([8, 16, 32, 64, 128]).default(16),
  /** Size of the KV cache; null: 40 % of the free memory, at most 4 GiB. */
  kvCacheMemoryBytes: optional(positive),
  /** Number of KV blocks, whatever the memory. */
  numGpuBlocksOverride: optional(positive),
  /** int8_per_token_head: with a scale for each head of each token. */
  kvCacheDtype: z.enum(['auto', 'float32', 'bfloat16', 'float16', 'int8_per_token_head']).default('auto'),
  enablePrefixCaching: z.boolean().default(true),
  /** Guess the next tokens and verify them in one step; null: one token a step. */
  speculativeConfig: optional(SpeculativeConfig),
  /** false: a prompt runs in one step or waits. */
  enableChunkedPrefill: z.boolean().default(true),
  /** Admit a batch only when all of the last one has ended; for comparison. */
  staticBatching: z.boolean().default(false),
  /** Seed of requests that name none (LLM); the gateway draws one per request. */
  seed: z.int().default(0),
  /** Threads of the kernels; 0: all cores. */
  threads: z.int().min(0).max(1024).default(0),
  isa: z.enum(['auto', 'plain', 'avx2', 'avx512', 'avx512_vnni', 'avx512_bf16', 'amx']).default('auto'),
  /** Where sampling defaults come from: auto, the model's generation_config.json; vllm, none; or a folder with one. */
  generationConfig: z.string().min(1).default('auto'),
  /** Fields of generation_config.json to replace. */
  overrideGenerationConfig: z.record(z.string(), z.unknown()).default({}),
  /** A file with a chat template, or the template itself; null: the model's. */
  chatTemplate: optional(z.string().min(1)),
  /** A folder or file with another tokenizer.json; null: the model's. */
  tokenizer: optional(z.string().min(1)),
  /** Branch, tag or commit on the hub. */
  revision: optional(z.string().min(1)),
  downloadDir: optional(z.string().min(1)),
  hfToken: optional(z.string()),
  hfEndpoint: optional(z.url()),
  /** Use only what is cached on disk. */
  offline: z.boolean().default(false),
  s3: z.strictObject({ endpoint: optional(z.url()), region: optional(z.string().min(1)) }).prefault({}),
  /** The engine's work moves to another engine when it has not shown progress for this long. */
  leaseMs: positive.min(200).max(600_000).default(3000),
  /** A step that runs longer than this is a hung kernel: the process ends and its work moves. */
  stepTimeoutMs: positive.default(300_000),
  /** Seconds that running requests get to finish after SIGTERM; the rest goes back to the queue. */
  shutdownTimeout: z.number().min(0).default(25),
  /** Largest `logprobs` a request may ask for. */
  maxLogprobs: z.int().min(0).max(1000).default(20),
  /** Port of /metrics, /health, /live and /ready; null: none, 0: any free one. */
  metricsPort: optional(z.int().min(0).max(65_535)),
  metricsHost: z.string().min(1).default('0.0.0.0'),
  /** For the lease's own connection, which lives in a thread; null: the queue is embedded in this process. */
  redisUrl: optional(z.string().min(1)),
})

export const EngineConfig = Fields.superRefine((config, context) => {
  const refuse = (field: keyof EngineConfig, message: string) =>
    context.addIssue({ code: 'custom', path: [field], message, input: config[field] })
  if (config.maxNumBatchedTokens < config.maxNumSeqs) {
    refuse(
      'maxNumBatchedTokens',
      `must be at least max-num-seqs, ${config.maxNumSeqs}: every running sequence needs a token of each step`,
    )
  }
  if (config.kvCacheMemoryBytes !== null && config.numGpuBlocksOverride !== null) {
    refuse('numGpuBlocksOverride', 'cannot be combined with kv-cache-memory-bytes: give one of them')
  }
}).readonly()

export type EngineConfig = Readonly<z.output<typeof Fields>>
export type EngineOptions = z.input<typeof Fields>

/** @throws Error with one line per bad field, named by its flag */
export function parseEngineConfig(options: EngineOptions): EngineConfig {
  const result = EngineConfig.safeParse(options)
  if (result.success) return result.data
  throw new Error(result.error.issues.map(describeIssue).join('\n'))
}

function describeIssue(issue: z.core.$ZodIssue): string {
  const [field, ...inner] = issue.path
  if (field === 'speculativeConfig') {
    const what = issue.code === 'unrecognized_keys' ? `${issue.keys.join(', ')}: unknown` : issue.message
    return `--speculative-config: ${[...inner, what].join(': ')}`
  }
  if (issue.code === 'unrecognized_keys') return `unknown option ${issue.keys.map(flagOf).join(', ')}`
  return `${flagOf(issue.path.join('.'))}: ${issue.message}`
}

/** maxModelLen -> --max-model-len, s3.endpoint -> --s3-endpoint */
function flagOf(field: string): string {
  return `--${field.replaceAll('.', '-').replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}
