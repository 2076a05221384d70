// Log-probability records -> the two shapes OpenAI has for them. Log-probabilities are clamped at -9999, as vLLM does:
// JSON has no infinity.
import type { Token, TokenLogprob } from '../../queue/event.ts'

export type TokenNames = 'text' | 'ids'

/** `bytes` is what the client must join to get whole characters; `token` may hold a replacement character. */
type ChatLogprob = { token: string; logprob: number; bytes: number[] }
export type ChatLogprobs = { content: (ChatLogprob & { top_logprobs: ChatLogprob[] })[]; refusal: null }

export type CompletionLogprobs = {
  text_offset: number[]
  token_logprobs: number[]
  tokens: string[]
  top_logprobs: Record<string, number>[]
}

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

/** `offset` is where the first token begins in the choice's text, in characters. */
export function completionLogprobs(
  tokens: Token[],
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
    record.token_logprobs.push(finite(sampled.logprob))
    record.top_logprobs.push(Object.fromEntries(logprobs.map((r) => [tokenName(r, names), finite(r.logprob)])))
    offset += [...name].length
  }
  return { record, end: offset }
}
