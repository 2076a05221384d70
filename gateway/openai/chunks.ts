// Events -> the chunks of a stream. A chunk is constant text around JSON.stringify(text): building the object and
// stringifying it whole costs ten times as much, once per token and client.
//
// Order per choice: (chat) a chunk with the role, one chunk per token that released text, one with the finish reason and
// no text. Then, if asked for, one with the usage and no choices; then [DONE].
import type { Finish, Token, Usage } from '../../queue/event.ts'
import { chatLogprobs, completionLogprobs, promptTokens, type TokenNames } from './logprobs.ts'
import type { EchoOptions } from './whole.ts'

export type Identity = { id: string; created: number; model: string; fingerprint: string }

export type ChunkOptions = {
  includeUsage: boolean
  /** Every chunk carries the usage so far. */
  continuousUsage: boolean
  logprobs: boolean
  tokenNames: TokenNames
  returnTokenIds: boolean
  promptTokens: number
}

/** What a route streams with; every method returns whole SSE events. */
export interface Chunks {
  open(choice: number): string
  tokens(choice: number, tokens: Token[]): string
  finish(choice: number, finish: Finish): string
  usage(usage: Usage): string
}

export const done = 'data: [DONE]\n\n'

export function errorEvent(envelope: string): string {
  return `data: ${envelope}\n\n`
}

export function usageObject({ promptTokens, completionTokens, cachedTokens }: Usage) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  }
}

abstract class StreamChunks implements Chunks {
  protected readonly options: ChunkOptions
  readonly #head: string
  readonly #usage: string
  #completionTokens = 0

  constructor(identity: Identity, object: string, options: ChunkOptions) {
    this.options = options
    const { id, created, model, fingerprint } = identity
    const fields = JSON.stringify({ id, object, created, model, system_fingerprint: fingerprint })
    this.#head = `data: ${fields.slice(0, -1)},"choices":[`
    this.#usage = options.includeUsage ? ',"usage":null' : ''
  }

  abstract open(choice: number): string
  protected abstract body(choice: number, text: string, tokens: Token[]): string
  protected abstract finishBody(choice: number, finish: Finish): string

  tokens(choice: number, tokens: Token[]): string {
    const { logprobs, returnTokenIds } = this.options
    let events = ''
    for (const token of tokens) {
      this.#completionTokens++
      // A withheld token's text comes with a later one; its log-probabilities and id must not wait.
      if (token.text === '' && !logprobs && !returnTokenIds) continue
      events += this.event(this.body(choice, token.text, [token]))
    }
    return events
  }

  finish(choice: number, finish: Finish): string {
    const held = finish.text === '' ? '' : this.event(this.body(choice, finish.text, []))
    return held + this.event(this.finishBody(choice, finish))
  }

  usage(usage: Usage): string {
    return `${this.#head}],"usage":${JSON.stringify(usageObject(usage))}}\n\n`
  }

  protected event(choice: string): string {
    return `${this.#head}${choice}]${this.options.continuousUsage ? this.#usageSoFar() : this.#usage}}\n\n`
  }

  protected tokenIds(tokens: Token[]): string {
    return this.options.returnTokenIds ? `,"token_ids":${JSON.stringify(tokens.map((token) => token.id))}` : ''
  }

  #usageSoFar(): string {
    const { promptTokens } = this.options
    const completionTokens = this.#completionTokens
    return `,"usage":${JSON.stringify({
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      total_tokens: promptTokens + completionTokens,
    })}`
  }
}

export class ChatChunks extends StreamChunks {
  readonly #role: string

  constructor(identity: Identity, options: ChunkOptions, role: string) {
    super(identity, 'chat.completion.chunk', options)
    this.#role = JSON.stringify(role)
  }

  override open(choice: number): string {
    const delta = `{"role":${this.#role},"content":""}`
    return this.event(`{"index":${choice},"delta":${delta},"logprobs":null,"finish_reason":null}`)
  }

  protected override body(choice: number, text: string, tokens: Token[]): string {
    const { logprobs, tokenNames } = this.options
    const record = logprobs && tokens.length > 0 ? JSON.stringify(chatLogprobs(tokens, tokenNames)) : 'null'
    const delta = `{"content":${JSON.stringify(text)}}`
    return `{"index":${choice},"delta":${delta},"logprobs":${record},"finish_reason":null${this.tokenIds(tokens)}}`
  }

  protected override finishBody(choice: number, { reason, stopReason }: Finish): string {
    const end = `"finish_reason":${JSON.stringify(reason)},"stop_reason":${JSON.stringify(stopReason)}`
    return `{"index":${choice},"delta":{},"logprobs":null,${end}}`
  }
}

export class CompletionChunks extends StreamChunks {
  readonly #shape: EchoOptions
  /** Per choice: characters of token text so far, the next text_offset. */
  readonly #offsets = new Map<number, number>()

  constructor(identity: Identity, options: ChunkOptions, shape: EchoOptions) {
    super(identity, 'text_completion', options)
    this.#shape = shape
  }

  /** Log-probabilities of the prompt come with the choice's first token, and the prompt with them. */
  override open(choice: number): string {
    return this.options.logprobs ? '' : this.#prompt(choice, [])
  }

  override tokens(choice: number, tokens: Token[]): string {
    const prompt = this.options.logprobs && !this.#offsets.has(choice) ? this.#prompt(choice, tokens) : ''
    return prompt + (this.#shape.continues ? super.tokens(choice, tokens) : '')
  }

  override finish(choice: number, finish: Finish): string {
    if (this.#shape.continues) return super.finish(choice, finish)
    return super.finish(choice, { text: '', reason: 'length', stopReason: null })
  }

  override usage(usage: Usage): string {
    return super.usage(this.#shape.continues ? usage : { ...usage, completionTokens: 0 })
  }

  #prompt(choice: number, tokens: Token[]): string {
    const text = this.#shape.echo(choice)
    if (text === '') return ''
    const records = promptTokens(tokens)
    const logprobs = records.length > 0 ? this.#logprobs(choice, records) : 'null'
    const end = `"finish_reason":null,"stop_reason":null${this.tokenIds([])}`
    return this.event(`{"index":${choice},"text":${JSON.stringify(text)},"logprobs":${logprobs},${end}}`)
  }

  protected override body(choice: number, text: string, tokens: Token[]): string {
    const record = this.options.logprobs && tokens.length > 0 ? this.#logprobs(choice, tokens) : 'null'
    const content = `"text":${JSON.stringify(text)},"logprobs":${record}`
    return `{"index":${choice},${content},"finish_reason":null,"stop_reason":null${this.tokenIds(tokens)}}`
  }

  protected override finishBody(choice: number, { reason, stopReason }: Finish): string {
    const end = `"finish_reason":${JSON.stringify(reason)},"stop_reason":${JSON.stringify(stopReason)}`
    return `{"index":${choice},"text":"","logprobs":null,${end}}`
  }

  #logprobs(choice: number, tokens: readonly Pick<Token, 'logprobs'>[]): string {
    const { record, end } = completionLogprobs(tokens, this.options.tokenNames, this.#offsets.get(choice) ?? 0)
    this.#offsets.set(choice, end)
    return JSON.stringify(record)
  }
}
