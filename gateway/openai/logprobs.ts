// Log-probability records -> the two shapes OpenAI has for them. Log-probabilities are clamped at -9999, as vLLM does:
// JSON has no infinity.
import type { Token, TokenLogprob } from '../../queue/event.ts'

export type TokenNames = 'text' | 'ids'

/** `bytes` is what the client must join to get whole characters; `token` may hold a replacement character. */
type ChatLogprob = { token: string; logprob: number; bytes: number[] }
export type ChatLogprobs = { content: (ChatLogprob & { top_logprobs: ChatLogprob[] })[]; refusal: null }

export type CompletionLogprobs = {
  text_offset: number[]
  /** null for the first token of a text, which follows nothing. */
  token_logprobs: (number | null)[]
  tokens: string[]
  top_logprobs: (Record<string, number> | null)[]
}

type PromptLogprob = { logprob: number; rank: number; decoded_token: string }
/** vLLM's: per token of the prompt, by token id. */
export type PromptLogprobs = (Record<number, PromptLogprob> | null)[]

const utf8 = new TextDecoder()

function tokenName({ id, bytes }: TokenLogprob, names: TokenNames): string {
  return names === 'ids' ? `token_id:${id}` : utf8.decode(Uint8Array.from(bytes))
}

const finite = (logprob: number): number => Math.max(logprob, -9999)

/** A token's records are the sampled one, then the most likely in order (queue/event.ts). */
export function chatLogprobs(tokens: Token[], names: TokenNames): ChatLogprobs {
  const one = (record: TokenLogprob): ChatLogprob => ({
    token: tokenName(record, names),
    logprob: finite(record.logprob),
    bytes: record.bytes,
  })
  const content = tokens.flatMap(({ logprobs }) => {
    const [sampled, ...top] = logprobs ?? []
    return sampled ? [{ ...one(sampled), top_logprobs: top.map(one) }] : []
  })
  return { content, refusal: null }
}

export function promptLogprobs({ prompt = [] }: Token): PromptLogprobs {
  const one = (record: TokenLogprob): [number, PromptLogprob] => {
    const { id, logprob, rank } = record
    return [id, { logprob: finite(logprob), rank, decoded_token: tokenName(record, 'text') }]
  }
  return prompt.map((records) => (isKnown(records) ? Object.fromEntries(records.map(one)) : null))
}

const isKnown = ([own]: TokenLogprob[]) => own !== undefined && own.rank > 0

/** `offset` is where the first token begins in the choice's text, in characters. */
export function completionLogprobs(
  tokens: readonly Pick<Token, 'logprobs'>[],
  names: TokenNames,
  offset: number,
): { record: CompletionLogprobs; end: number } {
  const record: CompletionLogprobs = { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] }
  for (const { logprobs } of tokens) {
    const sampled = logprobs?.[0]
    if (!logprobs || !sampled) continue
    const name = tokenName(sampled, names)
    record.text_offset.push(offset)
    record.tokens.push(name)
    const top = () => Object.fromEntries(logprobs.map((each) => [tokenName(each, names), finite(each.logprob)]))
    record.token_logprobs.push(isKnown(logprobs) ? finite(sampled.logprob) : null)
    record.top_logprobs.push(isKnown(logprobs) ? top() : null)
    offset += [...name].length
  }
  return { record, end: offset }
}

/** The tokens of the prompt that came with the first one of a choice, as if they had been sampled. */
export function promptTokens(tokens: readonly Token[]): Pick<Token, 'logprobs'>[] {
  return (tokens[0]?.prompt ?? []).map((logprobs) => ({ logprobs }))
}
