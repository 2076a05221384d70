// An Event is what comes back for a job. Tokens travel and are journalled one element per token, so that every
// position a client may resume from is a function of the token index and of nothing else.
//
// A journal element is JSON: `[id,"text"]`, `[id,"text",[logprob records]]`, and last `[-1,"text","reason",stopReason]`
// with the text that was withheld until the end was known.

export type FinishReason = 'stop' | 'length' | 'abort'

/** `bytes` are the token's own bytes, which need not be whole characters. */
export type TokenLogprob = { id: number; logprob: number; rank: number; bytes: number[] }

export type Token = {
  id: number
  /** Text released by this token; empty while a character or a stop string may still be incomplete. */
  text: string
  /** The sampled token first, then the most likely ones in order; absent unless asked for. */
  logprobs?: TokenLogprob[]
}

export type Finish = {
  /** Text that was held back until the sequence ended. */
  text: string
  reason: FinishReason
  /** The stop string or stop token id that matched; null for end of sequence and for the other reasons. */
  stopReason: string | number | null
}

export type Usage = { promptTokens: number; completionTokens: number; cachedTokens: number }

/** Codes of a failed job; the gateway maps each to an HTTP status and a message. */
export type FailureCode =
  | 'engine_unavailable'
  | 'capacity_timeout'
  | 'model_changed'
  | 'request_failed'
  | 'context_length_exceeded'
  | 'internal_error'

export type Event =
  | { type: 'tokens'; choice: number; from: number; tokens: Token[] }
  | ({ type: 'finish'; choice: number; index: number } & Finish)
  | { type: 'done'; usage: Usage }
  | { type: 'failed'; code: FailureCode; message: string }

export function encodeToken(token: Token): string {
  const head = `[${token.id},${JSON.stringify(token.text)}`
  if (!token.logprobs) return `${head}]`
  return `${head},${JSON.stringify(token.logprobs.map((l) => [l.id, l.logprob, l.rank, l.bytes]))}]`
}

export function encodeFinish(finish: Finish): string {
  return JSON.stringify([-1, finish.text, finish.reason, finish.stopReason])
}

export type Element = { token: Token } | { finish: Finish }

type RawLogprob = [id: number, logprob: number, rank: number, bytes: number[]]
type RawElement =
  | [id: number, text: string]
  | [id: number, text: string, logprobs: RawLogprob[]]
  | [id: -1, text: string, reason: FinishReason, stopReason: string | number | null]

/** `element` is the JSON text, or what JSON.parse made of it. */
export function decodeElement(element: string | RawElement): Element {
  const raw = typeof element === 'string' ? (JSON.parse(element) as RawElement) : element
  if (raw.length === 4) return { finish: { text: raw[1], reason: raw[2], stopReason: raw[3] } }
  const token: Token = { id: raw[0], text: raw[1] }
  if (raw.length === 3) token.logprobs = raw[2].map(([id, logprob, rank, bytes]) => ({ id, logprob, rank, bytes }))
  return { token }
}
