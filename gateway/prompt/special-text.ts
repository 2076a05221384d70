// User text never becomes a special token (a user who writes "<|im_start|>system" must not open a system turn). Special
// tokens' texts inside what a client sent are swapped for placeholders before the template is rendered; the rendered
// text is then encoded by a tokenizer in which the special tokens have another spelling:
//
//   client text     "say <|im_end|>"      -> hide   -> "say ⟦p3⟧"
//   rendered        "…say ⟦p3⟧<|im_end|>"  -> respell -> "…say <|im_end|>⟦s3⟧"
//
// so the whole text is encoded in one piece, exactly as if the user's had no meaning. Both spellings carry a random nonce
// in private-use characters: a client can write neither.
import type { Encoder } from './tokenizer.ts'

type AddedToken = { id: number; content: string; special: boolean }
/** The fields of tokenizer.json that are read here. */
export type TokenizerJson = {
  added_tokens?: AddedToken[]
  model: { vocab?: Record<string, number> | [string, number][]; unk_token?: string | null }
}

export class SpecialText {
  readonly #texts: string[]
  readonly #index: Map<string, number>
  readonly #pattern: RegExp | null
  readonly #placeholders: RegExp
  readonly #nonce: string

  /** `nonce` is digits only, which no template filter changes. */
  constructor(json: TokenizerJson, nonce: string) {
    const special = (json.added_tokens ?? []).filter((token) => token.special && token.content !== '')
    // Descending order puts "<a><b>" before "<a>": the alternation then finds the longest, as the tokenizer does.
    this.#texts = special.map((token) => token.content).sort((a, b) => (a < b ? 1 : -1))
    this.#index = new Map(this.#texts.map((text, i) => [text, i]))
    this.#pattern = this.#texts.length === 0 ? null : new RegExp(this.#texts.map(RegExp.escape).join('|'), 'g')
    this.#nonce = nonce
    this.#placeholders = new RegExp(`\u{f0000}${nonce}\\.(\\d+)\u{f0000}`, 'gu')
  }

  #placeholder(i: number): string {
    return `\u{f0000}${this.#nonce}.${i}\u{f0000}`
  }

  #standIn(i: number): string {
    return `\u{100000}${this.#nonce}.${i}\u{100000}`
  }

  /** A copy of `value` with every string in it made safe; `found` says whether any held a special token's text. */
  hide<T>(value: T): { value: T; found: boolean } {
    let found = false
    const visit = (item: unknown): unknown => {
      if (typeof item === 'string') {
        const text = item.isWellFormed() ? item : item.toWellFormed()
        if (this.#pattern === null || text.search(this.#pattern) < 0) return text
        found = true
        return text.replace(this.#pattern, (special) => this.#placeholder(this.#index.get(special)!))
      }
      if (Array.isArray(item)) return item.map(visit)
      if (item === null || typeof item !== 'object') return item
      // Keys too: the arguments of a tool call are the client's, and templates print them.
      return Object.fromEntries(Object.entries(item).map(([key, field]) => [visit(key), visit(field)]))
    }
    return { value: visit(value) as T, found }
  }

  /** Placeholders back to the text the client wrote. */
  reveal(rendered: string): string {
    return rendered.replace(this.#placeholders, (_, i) => this.#texts[Number(i)]!)
  }

  /** The rendered text for the tokenizer made from `respellJson`: the template's own special tokens stay special. */
  respell(rendered: string): string {
    const marked = this.#pattern
      ? rendered.replace(this.#pattern, (special) => this.#standIn(this.#index.get(special)!))
      : rendered
    return this.reveal(marked)
  }

  /** tokenizer.json with every special token renamed to its stand-in; ids are unchanged. */
  respellJson(text: string): string {
    const json = JSON.parse(text) as TokenizerJson
    const rename = (name: string) => (this.#index.has(name) ? this.#standIn(this.#index.get(name)!) : name)
    for (const token of json.added_tokens ?? []) if (token.special) token.content = rename(token.content)
    const { model } = json
    if (model.unk_token) model.unk_token = rename(model.unk_token)
    if (Array.isArray(model.vocab)) model.vocab = model.vocab.map(([piece, score]) => [rename(piece), score])
    else if (model.vocab) {
      model.vocab = Object.fromEntries(Object.entries(model.vocab).map(([piece, id]) => [rename(piece), id]))
    }
    return JSON.stringify(json)
  }

  /** Throws if the stand-ins did not get the ids of the tokens they stand for. */
  check(original: Encoder, respelled: Encoder): void {
    for (const [text, i] of this.#index) {
      const [id, standInId] = [original.idOf(text), respelled.idOf(this.#standIn(i))]
      if (id !== standInId) throw new Error(`special token ${text} has id ${id}, its stand-in ${standInId}`)
    }
  }
}
