// Body -> Sampling: what the client asked for, else what the model's generation_config says, else OpenAI's and vLLM's
// defaults. Everything is decided here, so that any engine computes the same continuation from the job alone.
import type { Card } from '../../queue/card.ts'
import type { Sampling } from '../../queue/job.ts'
import { badRequest } from '../errors.ts'
import type { ChatRequest, CompletionRequest } from './schema.ts'

export type Limits = { maxN: number; maxLogprobs: number }

const INT64_MIN = -(2n ** 63n)
const INT64_MAX = 2n ** 63n - 1n
/** vLLM's default of max_tokens for /v1/completions. */
export const completionTokens = 16

/** Sampling but for the fields that depend on the prompt's length. */
export type OpenSampling = Omit<Sampling, 'maxTokens'>

/** What is not in the body as it must be in the job: a seed, and the bad words as tokens. */
export type Resolved = { seed: string; badWords: number[][] }

export function chatSampling(body: ChatRequest, card: Card, limits: Limits, resolved: Resolved): OpenSampling {
  const logprobs = body.logprobs ? (body.top_logprobs ?? 0) : null
  checkLogprobs('top_logprobs', logprobs, card, limits)
  return sampling(body, card, limits, resolved, logprobs, body.prompt_logprobs ?? null)
}

export function completionSampling(
  body: CompletionRequest,
  card: Card,
  limits: Limits,
  resolved: Resolved,
): OpenSampling {
  const logprobs = body.logprobs ?? null
  checkLogprobs('logprobs', logprobs, card, limits)
  // What is echoed has log-probabilities like the rest.
  const ofPrompt = body.prompt_logprobs ?? (body.echo ? logprobs : null)
  return sampling(body, card, limits, resolved, logprobs, ofPrompt)
}

/**
 * Tokens each choice may generate. Asked for: must fit, with the prompt, in the model's length and, with all choices, in
 * the memory of one engine. Not asked for: `fallback` or the model's default, as far as both leave room. `param` is the
 * prompt's field.
 */
export function maxTokens(
  card: Card,
  prompt: { tokens: number; param: string },
  n: number,
  asked: number | undefined,
  fallback = card.defaults.maxTokens ?? card.maxModelLength,
): number {
  const left = card.maxModelLength - prompt.tokens
  const room = Math.floor((card.kvTokens - prompt.tokens) / n)
  const wanted = asked ?? Math.max(1, Math.min(fallback, left, room))
  if (wanted > left) {
    const message =
      `This model's maximum context length is ${card.maxModelLength} tokens. However, your prompt contains ` +
      `${prompt.tokens} tokens and you requested ${wanted} output tokens. Shorten the prompt or lower max_tokens.`
    throw badRequest(prompt.param, message, 'context_length_exceeded')
  }
  if (wanted > room) {
    const message =
      `A prompt of ${prompt.tokens} tokens with ${n} x ${wanted} output tokens needs more than the ${card.kvTokens} ` +
      'tokens an engine of this model can hold. Lower max_tokens or n.'
    throw badRequest(prompt.param, message, 'context_length_exceeded')
  }
  return wanted
}

/** The client's seed as int64 digits. `digits` are the body's own, as a JavaScript number holds only 53 bits. */
export function seedText(seed: number, digits: string | undefined): string {
  const value = Number.isSafeInteger(seed) ? BigInt(seed) : BigInt(digits ?? seed)
  if (value < INT64_MIN || value > INT64_MAX) throw badRequest('seed', 'seed: must be a 64-bit signed integer.')
  return value.toString()
}

function sampling(
  body: ChatRequest | CompletionRequest,
  card: Card,
  limits: Limits,
  { seed, badWords }: Resolved,
  logprobs: number | null,
  promptLogprobs: number | null,
): OpenSampling {
  const { defaults } = card
  const n = body.n ?? 1
  if (n > limits.maxN) throw badRequest('n', `n: is ${n}; this server takes at most ${limits.maxN}.`)
  checkLogprobs('prompt_logprobs', promptLogprobs, card, limits)
  const topK = body.top_k ?? defaults.topK ?? 0
  return {
    n,
    minTokens: body.min_tokens ?? 0,
    temperature: body.temperature ?? defaults.temperature ?? 1,
    topP: body.top_p ?? defaults.topP ?? 1,
    topK: topK === -1 ? 0 : topK,
    minP: body.min_p ?? defaults.minP ?? 0,
    presencePenalty: body.presence_penalty ?? 0,
    frequencyPenalty: body.frequency_penalty ?? 0,
    repetitionPenalty: body.repetition_penalty ?? defaults.repetitionPenalty ?? 1,
    logitBias: body.logit_bias.map(([id, bias]) => [inVocabulary(card, 'logit_bias', id), bias]),
    allowedTokenIds: body.allowed_token_ids?.map((id) => inVocabulary(card, 'allowed_token_ids', id)) ?? null,
    seed,
    stop: body.stop ?? [],
    stopTokenIds: (body.stop_token_ids ?? []).map((id) => inVocabulary(card, 'stop_token_ids', id)),
    ignoreEos: body.ignore_eos ?? false,
    includeStopString: body.include_stop_str_in_output ?? false,
    skipSpecialTokens: body.skip_special_tokens ?? true,
    logprobs,
    // Fields that engines of the release before do not know are sent only when they say something.
    ...(badWords.length > 0 && { badWords }),
    ...(promptLogprobs !== null && { promptLogprobs }),
    ...(body.use_beam_search && { useBeamSearch: true, lengthPenalty: body.length_penalty ?? 1 }),
  }
}

function checkLogprobs(field: string, asked: number | null, card: Card, limits: Limits): void {
  const most = Math.min(limits.maxLogprobs, card.maxLogprobs)
  if ((asked ?? 0) > most) throw badRequest(field, `${field}: is ${asked}; this server returns at most ${most}.`)
}

function inVocabulary(card: Card, param: string, id: number): number {
  if (id < card.vocabularySize) return id
  throw badRequest(param, `${param}: token id ${id} is outside of the vocabulary of ${card.vocabularySize} tokens.`)
}
