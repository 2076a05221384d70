// Token ids -> text, one token at a time, for one sequence. The concatenation equals what the Rust `tokenizers`
// library decodes from the whole sequence, and no piece ever ends inside a character: bytes wait until the character
// is whole, or become U+FFFD once no further byte can make it whole. One exception, on purpose: where broken bytes
// stand in one run of <0xNN> tokens with whole characters, the library replaces the whole run; a stream has sent
// those characters already, so they stay (as in SentencePiece itself).
//
// The text is that of a continuation: a token that follows prompt text keeps its leading space.
// State depends on the prompt and the ids alone, so replaying them (resume) restores it.
import { characterAt, codePointAt } from './characters.ts'
import type { Vocab } from './vocab.ts'

const NONE = new Uint8Array(0)
const REPLACEMENT = '\ufffd'
/** Tokens of the prompt that can hold the bytes of a character the prompt's end cuts off. */
const TAIL = 4

export class Detokenizer {
  #vocab: Vocab
  #skipSpecial: boolean
  /** The beginning of a character, at most 3 bytes. */
  #pending: Uint8Array = NONE
  /** Times Strip may still cut at the start of the text. */
  #strip: number
  #first: boolean

  constructor(vocab: Vocab, options: { skipSpecialTokens: boolean; prompt?: Uint32Array }) {
    this.#vocab = vocab
    this.#skipSpecial = options.skipSpecialTokens
    this.#strip = vocab.start.strip.count
    this.#first = vocab.start.firstTokenDropsSpaces
    if (options.prompt) this.#follow(options.prompt)
  }

  /** The text that token `id` completes; '' while a character is not whole. */
  push(id: number): string {
    const vocab = this.#vocab
    if (this.#skipSpecial && vocab.isSpecial(id)) return ''
    const whole = this.#pending.length === 0 ? vocab.text(id) : null
    const text = whole ?? this.#decode(id)
    return this.#strip === 0 && !this.#first ? text : this.#startOfText(text)
  }

  /** End of the sequence: a character that never became whole. */
  flush(): string {
    const text = this.#replacement(this.#pending.length)
    this.#pending = NONE
    return text
  }

  #decode(id: number): string {
    const vocab = this.#vocab
    if (!vocab.has(id)) return ''
    if (vocab.byteFallback && !vocab.isByte(id)) return this.flush() + (vocab.text(id) ?? '')
    const bytes = joined(this.#pending, vocab.bytes(id))
    let text = ''
    let i = 0
    while (i < bytes.length) {
      const size = characterAt(bytes, i)
      if (size === 0) break
      text += size > 0 ? String.fromCodePoint(codePointAt(bytes, i, size)) : this.#replacement(-size)
      i += Math.abs(size)
    }
    this.#pending = i < bytes.length ? bytes.slice(i) : NONE
    return text
  }

  #replacement(bytes: number): string {
    return bytes === 0 ? '' : REPLACEMENT.repeat(this.#vocab.byteFallback ? bytes : 1)
  }

  #startOfText(text: string): string {
    let rest = text
    if (this.#first) {
      this.#first = false
      rest = rest.replaceAll(' ', '')
    }
    const { content } = this.#vocab.start.strip
    while (this.#strip > 0 && rest.startsWith(content)) {
      rest = rest.slice(content.length)
      this.#strip--
    }
    if (rest !== '') this.#strip = 0
    return rest
  }

  /** Reads of the prompt what matters: whether it has text, and the bytes of a character its end cuts off. */
  #follow(prompt: Uint32Array) {
    let i = 0
    while (i < prompt.length && (this.#strip > 0 || this.#first)) this.push(prompt[i++] as number)
    for (i = Math.max(i, prompt.length - TAIL); i < prompt.length; i++) this.push(prompt[i] as number)
  }
}

function joined(head: Uint8Array, tail: Uint8Array): Uint8Array {
  if (head.length === 0) return tail
  const all = new Uint8Array(head.length + tail.length)
  all.set(head)
  all.set(tail, head.length)
  return all
}
