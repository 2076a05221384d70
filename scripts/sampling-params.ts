// SamplingParams of the offline API: vLLM's names and defaults (camelCase works too), turned into the queue's Sampling.
// A value that is not allowed is refused with the name it was given under.
import { Sampling } from '../queue/job.ts'

type OneOrMany<T> = T | readonly T[]

/** vLLM's parameters. `max_tokens: null`: until the model's length. */
export type SamplingOptions = {
  n?: number
  max_tokens?: number | null
  min_tokens?: number
  temperature?: number
  top_p?: number
  top_k?: number
  min_p?: number
  presence_penalty?: number
  frequency_penalty?: number
  repetition_penalty?: number
  logit_bias?: Record<number, number>
  allowed_token_ids?: readonly number[] | null
  bad_words?: readonly string[] | null
  seed?: number | bigint | null
  stop?: OneOrMany<string> | null
  stop_token_ids?: readonly number[] | null
  ignore_eos?: boolean
  include_stop_str_in_output?: boolean
  skip_special_tokens?: boolean
  logprobs?: number | null
  /** The n best of n beams instead of n samples. */
  use_beam_search?: boolean
  length_penalty?: number
  prompt_logprobs?: number | null
}
type CamelFields = Omit<Sampling, 'stop' | 'seed' | 'logitBias' | 'badWords'> & {
  seed: number | bigint
  stop: OneOrMany<string>
  logitBias: Record<number, number>
  badWords: readonly string[]
  includeStopStrInOutput: boolean
}
export type CamelSamplingOptions = { [Name in keyof CamelFields]?: CamelFields[Name] | undefined }

const snakeNames = {
  n: 'n',
  max_tokens: 'maxTokens',
  min_tokens: 'minTokens',
  temperature: 'temperature',
  top_p: 'topP',
  top_k: 'topK',
  min_p: 'minP',
  presence_penalty: 'presencePenalty',
  frequency_penalty: 'frequencyPenalty',
  repetition_penalty: 'repetitionPenalty',
  logit_bias: 'logitBias',
  allowed_token_ids: 'allowedTokenIds',
  bad_words: 'badWords',
  seed: 'seed',
  stop: 'stop',
  stop_token_ids: 'stopTokenIds',
  ignore_eos: 'ignoreEos',
  include_stop_str_in_output: 'includeStopString',
  skip_special_tokens: 'skipSpecialTokens',
  logprobs: 'logprobs',
  use_beam_search: 'useBeamSearch',
  length_penalty: 'lengthPenalty',
  prompt_logprobs: 'promptLogprobs',
} as const satisfies Record<keyof SamplingOptions, keyof Sampling>

/** vLLM's defaults; every field that a caller may leave out or set to null. */
const defaults: Omit<Sampling, 'seed'> = {
  n: 1,
  maxTokens: 16,
  minTokens: 0,
  temperature: 1,
  topP: 1,
  topK: 0,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  logitBias: [],
  allowedTokenIds: null,
  stop: [],
  stopTokenIds: [],
  ignoreEos: false,
  includeStopString: false,
  skipSpecialTokens: true,
  logprobs: null,
}

export class SamplingParams {
  /** The model's tokenizer makes tokens of them. */
  readonly badWords: readonly string[]
  readonly #sampling: Omit<Sampling, 'seed' | 'maxTokens'>
  /** null: until the model's length. */
  readonly #maxTokens: number | null
  readonly #seed: string | null

  constructor(options: SamplingOptions | CamelSamplingOptions = {}) {
    const given: Record<string, unknown> = {}
    for (const [name, value] of Object.entries(options)) {
      if (value === undefined || (value === null && name !== 'max_tokens' && name !== 'maxTokens')) continue
      given[fieldOf(name)] = value
    }
    const { seed, maxTokens = defaults.maxTokens, badWords = [], ...rest } = given
    this.badWords = checkWords(badWords, options)
    const fields = {
      ...defaults,
      ...rest,
      stop: [rest.stop ?? []].flat(),
      topK: rest.topK === -1 ? 0 : (rest.topK ?? 0),
      logitBias: Object.entries(rest.logitBias ?? {}).map(([id, bias]) => [Number(id), bias]),
      seed: seed === undefined ? '0' : String(seed),
      maxTokens: maxTokens ?? 1,
    }
    const checked = Sampling.safeParse(fields)
    if (!checked.success) {
      const { path, message } = checked.error.issues[0]!
      throw new TypeError(`SamplingParams: ${nameOf(String(path[0]), options)}: ${message}`)
    }
    const { seed: checkedSeed, maxTokens: checkedMax, ...sampling } = checked.data
    this.#sampling = sampling
    this.#seed = seed === undefined ? null : checkedSeed
    this.#maxTokens = maxTokens === null ? null : checkedMax
  }

  /** For one prompt: `seed` where none was given, `room` where the length is open, the bad words as tokens. */
  resolve({ seed, room, badWords = [] }: { seed: string; room: number; badWords?: number[][] }): Sampling {
    return { ...this.#sampling, badWords, seed: this.#seed ?? seed, maxTokens: this.#maxTokens ?? Math.max(1, room) }
  }
}

function checkWords(words: unknown, options: object): readonly string[] {
  const isWord = (word: unknown) => typeof word === 'string' && word.trim() !== ''
  if (Array.isArray(words) && words.every(isWord)) return words
  throw new TypeError(`SamplingParams: ${nameOf('badWords', options)}: must be an array of strings that are not blank`)
}

function fieldOf(name: string): string {
  if (name === 'includeStopStrInOutput') return 'includeStopString'
  const field = Object.hasOwn(snakeNames, name) ? snakeNames[name as keyof SamplingOptions] : name
  if (Object.values<string>(snakeNames).includes(field)) return field
  throw new TypeError(`SamplingParams: ${name} is not known; known are ${Object.keys(snakeNames).join(', ')}`)
}

/** As the caller spelled it. */
function nameOf(field: string, options: object): string {
  return Object.keys(options).find((name) => fieldOf(name) === field) ?? field
}
