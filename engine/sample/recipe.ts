// What a request's Sampling means for the sampler, computed once per request: numbers as the kernel wants them, biases
// and masks over the vocabulary. Sampling fields that this model cannot honour are refused here, by name.
import type { Sampling } from '../../queue/job.ts'
import { RequestRefused } from '../errors.ts'

export type Bias = { ids: number[]; values: number[] }

export type Recipe = {
  sampling: Sampling
  /** The seed, as two's complement. */
  seedLow: number
  seedHigh: number
  hasPenalties: boolean
  bias: Bias
  /** Until minTokens are generated: the bias, and whatever would end the sequence forbidden. */
  earlyBias: Bias
  /** Token sequences that must not come to be: the last token is forbidden where the ones before it stand. */
  badWords: { before: number[]; last: number }[]
  /** One bit per token of the vocabulary; null: all are allowed. */
  allowed: Int32Array | null
}

export type RecipeOptions = { vocabularySize: number; eosTokenIds: readonly number[] }

export function makeRecipe(sampling: Sampling, { vocabularySize, eosTokenIds }: RecipeOptions): Recipe {
  const biased = sampling.logitBias.map(([id]) => id)
  const { allowedTokenIds, stopTokenIds, minTokens } = sampling
  for (const [field, ids] of Object.entries({ logit_bias: biased, allowed_token_ids: allowedTokenIds ?? [] })) {
    const bad = ids.find((id) => id >= vocabularySize)
    if (bad !== undefined) throw refused(`${field}: token ${bad}; the vocabulary has ${vocabularySize}`)
  }
  const badWords = sampling.badWords ?? []
  const bad = badWords.flat().find((id) => id >= vocabularySize)
  if (bad !== undefined) throw refused(`bad_words: token ${bad}; the vocabulary has ${vocabularySize}`)
  // A stop id beyond the vocabulary is never sampled, and nothing need forbid it.
  const ends = [...new Set([...eosTokenIds, ...stopTokenIds])].filter((id) => id < vocabularySize)
  const counts = { logprobs: sampling.logprobs, prompt_logprobs: sampling.promptLogprobs }
  for (const [field, k] of Object.entries(counts)) {
    if ((k ?? 0) > vocabularySize) throw refused(`${field}: ${k}; the vocabulary has ${vocabularySize} tokens`)
  }
  if (allowedTokenIds?.length === 0) throw refused('allowed_token_ids: empty; allow at least one token')
  if (minTokens > 0 && allowedTokenIds?.every((id) => ends.includes(id))) {
    throw refused('allowed_token_ids: only tokens that end the answer; allow another one, or set min_tokens to 0')
  }
  const seed = BigInt.asUintN(64, BigInt(sampling.seed))
  const bias = { ids: biased, values: sampling.logitBias.map(([, value]) => value) }
  const forbidden = ends.map(() => Number.NEGATIVE_INFINITY)
  return {
    sampling,
    seedLow: Number(seed & 0xffffffffn),
    seedHigh: Number(seed >> 32n),
    hasPenalties: sampling.repetitionPenalty !== 1 || sampling.frequencyPenalty !== 0 || sampling.presencePenalty !== 0,
    bias,
    earlyBias: { ids: [...biased, ...ends], values: [...bias.values, ...forbidden] },
    badWords: badWords.map((ids) => ({ before: ids.slice(0, -1), last: ids.at(-1)! })),
    allowed: allowedTokenIds && bitmask(allowedTokenIds, vocabularySize),
  }
}

function bitmask(ids: number[], size: number): Int32Array {
  const words = new Int32Array(Math.ceil(size / 32))
  for (const id of ids) words[id >> 5]! |= 1 << (id & 31)
  return words
}

function refused(message: string): RequestRefused {
  return new RequestRefused('request_failed', message)
}
