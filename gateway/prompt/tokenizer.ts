// Text -> ids with the official `tokenizers` package, which encodes on libuv's threads: the event loop only waits.
// Building one from a large tokenizer.json takes 50-450 ms of this thread, once per content hash and process.
import { Tokenizer } from 'tokenizers'
import type { Job } from '../../queue/job.ts'
import { SpecialText, type TokenizerJson } from './special-text.ts'

/** What a job carries as its prompt. */
export type TokenIds = Job['prompt']

export class Encoder {
  readonly #tokenizer: Tokenizer

  constructor(json: string) {
    this.#tokenizer = Tokenizer.fromString(json)
    // Files exported from training may carry both; they would cut or fill a prompt silently.
    this.#tokenizer.disableTruncation()
    this.#tokenizer.disablePadding()
  }

  /** `addSpecialTokens` lets the tokenizer add what its post-processor defines (bos for most models). */
  async encode(text: string, addSpecialTokens: boolean): Promise<TokenIds> {
    if (text === '' && !addSpecialTokens) return new Uint32Array(0)
    const encoding = await this.#tokenizer.encode(text, null, { addSpecialTokens })
    return Uint32Array.from(encoding.getIds())
  }

  decode(ids: TokenIds | number[], skipSpecialTokens: boolean): Promise<string> {
    return this.#tokenizer.decode(Array.from(ids), skipSpecialTokens)
  }

  idOf(token: string): number | null {
    return this.#tokenizer.tokenToId(token)
  }

  tokenOf(id: number): string | null {
    return this.#tokenizer.idToToken(id)
  }
}

/** A model's tokenizer, and its twin for prompts in which a client wrote a special token's text. */
export class PromptEncoder {
  readonly plain: Encoder
  readonly special: SpecialText
  /** Characters of the longest token: n tokens can stand for no more than n times as many. */
  readonly longestToken: number
  readonly #json: () => Promise<string>
  #respelled: Promise<Encoder> | null = null

  /** `json` is read again when the twin is first needed: few processes ever do, and the text is megabytes. */
  constructor(text: string, nonce: string, json: () => Promise<string>) {
    this.plain = new Encoder(text)
    const parsed = JSON.parse(text) as TokenizerJson
    this.special = new SpecialText(parsed, nonce)
    this.longestToken = longestToken(parsed)
    this.#json = json
  }

  /** `rendered` holds placeholders of `special.hide` where `hidden` is true. */
  async encodeRendered(rendered: string, hidden: boolean, addSpecialTokens: boolean): Promise<TokenIds> {
    if (!hidden) return this.plain.encode(rendered, addSpecialTokens)
    this.#respelled ??= this.#respell()
    const encoder = await this.#respelled
    return encoder.encode(this.special.respell(rendered), addSpecialTokens)
  }

  /** Token sequences to forbid: each word as a text begins with it, and as it stands after a space. vLLM leaves the
   * second out where it has more or fewer tokens than the first, and so lets the word through in mid-sentence. */
  async badWords(words: readonly string[]): Promise<number[][]> {
    const found: number[][] = []
    for (const word of words) {
      const text = word.toWellFormed().trimStart()
      const bare = Array.from(await this.plain.encode(text, false))
      const spaced = Array.from(await this.plain.encode(` ${text}`, false))
      found.push(bare)
      // Else the first says it: the space is a token of its own, or the tokenizer puts one before every text.
      if (spaced.slice(-bare.length).join() !== bare.join()) found.push(spaced)
    }
    // A tokenizer may drop characters that it does not know.
    return found.filter((ids) => ids.length > 0)
  }

  async #respell(): Promise<Encoder> {
    const encoder = new Encoder(this.special.respellJson(await this.#json()))
    this.special.check(this.plain, encoder)
    return encoder
  }
}

/** In a byte-level vocabulary a token is as many characters as it has bytes, which is at least the text's. */
function longestToken({ added_tokens = [], model: { vocab = {} } }: TokenizerJson): number {
  const pieces = Array.isArray(vocab) ? vocab.map(([piece]) => piece) : Object.keys(vocab)
  return pieces
    .concat(added_tokens.map((token) => token.content))
    .reduce((most, { length }) => Math.max(most, length), 1)
}
