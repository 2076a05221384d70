// An Event is what comes back for a job. Tokens travel and are journalled one element per token, so that every
// position a client may resume from is a function of the token index and of nothing else.
//
// A journal element is JSON: `[id,"text"]`, `[id,"text",[logprob records]]`, `[id,"text",[...] or null,[records of the
// prompt's tokens]]`, and last `[-1,"text","reason",stopReason]` with the text that was withheld until the end was known.

export type FinishReason = 'stop' | 'length' | 'abort'

/** `bytes` are the token's own bytes, which need not be whole characters. Rank 1 is the most likely; 0: not known. */
export type TokenLogprob = { id: number; logprob: number; rank: number; bytes: number[] }

export type Token = {
  id: number
  /** Text released by this token; empty while a character or a stop string may still be incomplete. */
  text: string
  /** The sampled token first, then the most likely ones in order; absent unless asked for. */
  logprobs?: TokenLogprob[]
  /** Of every token of the prompt the same, with the first token of each choice, if asked for. */
  prompt?: TokenLogprob[][]
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
  if (!token.logprobs && !token.prompt) return `${head}]`
  const logprobs = token.logprobs ? JSON.stringify(token.logprobs.map(encodeLogprob)) : 'null'
  if (!token.prompt) return `${head},${logprobs}]`
  return `${head},${logprobs},${JSON.stringify(token.prompt.map((records) => records.map(encodeLogprob)))}]`
}

function encodeLogprob({ id, logprob, rank, bytes }: TokenLogprob): RawLogprob {
  return [id, logprob, rank, bytes]
}

function decodeLogprob([id, logprob, rank, bytes]: RawLogprob): TokenLogprob {
  return { id, logprob, rank, bytes }
}

export function encodeFinish(finish: Finish): string {
  return JSON.stringify([-1, finish.text, finish.reason, finish.stopReason])
}

export type Element = { token: Token } | { finish: Finish }

type RawLogprob = [id: number, logprob: number, rank: number, bytes: number[]]
type RawFinish = [id: -1, text: string, reason: FinishReason, stopReason: string | number | null]
type RawToken =
  | [id: number, text: string]
  | [id: number, text: string, logprobs: RawLogprob[]]
  | [id: number, text: string, logprobs: RawLogprob[] | null, prompt: RawLogprob[][]]
type RawElement = RawToken | RawFinish

const isFinish = (raw: RawElement): raw is RawFinish => raw[0] === -1

/** `element` is the JSON text, or what JSON.parse made of it. */
export function decodeElement(element: string | RawElement): Element {
  const raw = typeof element === 'string' ? (JSON.parse(element) as RawElement) : element
  if (isFinish(raw)) return { finish: { text: raw[1], reason: raw[2], stopReason: raw[3] } }
  const [id, text, logprobs, prompt] = raw
  const token: Token = { id, text }
  if (logprobs) token.logprobs = logprobs.map(decodeLogprob)
  if (prompt) token.prompt = prompt.map((records) => records.map(decodeLogprob))
  return { token }
}
