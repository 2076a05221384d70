// The vocabulary of tokenizer.json as a table id -> bytes. Built once per engine, read by the detokenizer for every
// token and by whoever reports a token's own bytes. The bytes of all tokens lie end to end in one buffer, so a
// vocabulary of 150,000 tokens costs about a megabyte and no objects.
import { characterAt } from './characters.ts'
import { parseDecoder, type TextStart } from './decoder.ts'

const SPECIAL = 1
const BYTE = 2
const KNOWN = 4
const MAX_TOKENS = 1 << 24

type AddedToken = { id: number; content: string; special: boolean }

export class Vocab {
  /** One more than the largest id. */
  readonly size: number
  /** A `<0xNN>` vocabulary: every byte of a broken character becomes a U+FFFD of its own. */
  readonly byteFallback: boolean
  readonly start: TextStart
  #bytes: Uint8Array
  #begin: Uint32Array
  #flags: Uint8Array
  /** Text of the tokens that are whole characters (null: they are not), filled on first use. */
  #text: (string | null | undefined)[]

  /** @throws Error naming what in tokenizer.json is not supported */
  constructor(tokenizerJson: string) {
    const json = JSON.parse(tokenizerJson) as {
      model?: { vocab?: unknown }
      added_tokens?: AddedToken[]
      decoder?: unknown
    }
    const decoder = parseDecoder(json.decoder)
    const added = (json.added_tokens ?? []).filter((token) => token.content !== '')
    const tokens = modelTokens(json.model?.vocab)
    const addedIds = placeAdded(tokens, added)

    this.size = tokens.length
    this.byteFallback = decoder.byteFallback
    this.start = decoder.start
    this.#begin = new Uint32Array(tokens.length + 1)
    this.#flags = new Uint8Array(tokens.length)
    this.#text = new Array(tokens.length)
    let buffer = new Uint8Array(16 * tokens.length + 16)
    let end = 0
    for (let id = 0; id < tokens.length; id++) {
      const token = tokens[id]
      if (token !== undefined) {
        const byte = decoder.byte(token)
        const bytes = byte >= 0 ? Uint8Array.of(byte) : decoder.bytes(token)
        if (end + bytes.length > buffer.length) buffer = grown(buffer, end + bytes.length)
        buffer.set(bytes, end)
        end += bytes.length
        this.#flags[id] = KNOWN | (byte >= 0 ? BYTE : 0)
      }
      this.#begin[id + 1] = end
    }
    this.#bytes = buffer.slice(0, end)
    for (let i = 0; i < added.length; i++) if (added[i]?.special) this.#flags[addedIds[i] as number]! |= SPECIAL
  }

  /** The token's bytes, which need not be whole characters; none for an id without a token (padded embeddings). */
  bytes(id: number): Uint8Array {
    return this.#bytes.subarray(this.#begin[id] ?? 0, this.#begin[id + 1] ?? 0)
  }

  /** Has a token; ids without one decode to nothing. */
  has(id: number): boolean {
    return (this.#flags[id] ?? 0) !== 0
  }

  isSpecial(id: number): boolean {
    return ((this.#flags[id] ?? 0) & SPECIAL) !== 0
  }

  isByte(id: number): boolean {
    return ((this.#flags[id] ?? 0) & BYTE) !== 0
  }

  /** The token's text if its bytes are whole characters, else null. */
  text(id: number): string | null {
    const known = this.#text[id]
    if (known !== undefined) return known
    if (!this.has(id)) return ''
    const text = wholeText(this.bytes(id))
    this.#text[id] = text
    return text
  }
}

/** BPE, WordLevel and WordPiece map token -> id; Unigram lists [token, score] in the order of ids. */
function modelTokens(vocab: unknown): (string | undefined)[] {
  if (Array.isArray(vocab)) return vocab.map((entry) => String((entry as [string, number])[0]))
  if (typeof vocab !== 'object' || vocab === null) throw new Error('tokenizer.json: "model.vocab" is missing')
  const entries = Object.entries(vocab)
  const tokens = new Array<string | undefined>(entries.length)
  for (const [token, id] of entries) {
    if (!Number.isInteger(id) || id < 0 || id >= MAX_TOKENS) {
      throw new Error(
        `tokenizer.json: the id ${id} of token ${JSON.stringify(token)} is not an integer below ${MAX_TOKENS}`,
      )
    }
    tokens[id] = token
  }
  return tokens
}

/** Where the added tokens go. As in the library that encodes, the written ids do not count: a token of the model keeps
 * the model's id, every other takes the next free one after the model's. */
function placeAdded(tokens: (string | undefined)[], added: AddedToken[]): number[] {
  const wanted = new Set(added.map((token) => token.content))
  const known = new Map<string, number>()
  let size = 0
  for (const [id, token] of tokens.entries()) {
    if (token === undefined) continue
    size++
    if (wanted.has(token)) known.set(token, id)
  }
  let last = -1
  const ids = added.map(({ content }) => {
    const id = known.get(content) ?? Math.max(size, last + 1)
    known.set(content, id)
    last = Math.max(last, id)
    return id
  })
  for (const [i, id] of ids.entries()) tokens[id] = added[i]?.content
  return ids
}

function grown(buffer: Uint8Array, needed: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(Math.max(2 * buffer.length, needed))
  larger.set(buffer)
  return larger
}

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })

function wholeText(bytes: Uint8Array): string | null {
  for (let i = 0; i < bytes.length; ) {
    const size = characterAt(bytes, i)
    if (size <= 0) return null
    i += size
  }
  return utf8.decode(bytes)
}
