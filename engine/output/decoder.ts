// The `decoder` of tokenizer.json, turned into what a stream needs: the bytes of each token alone, and what is cut
// from the beginning of the text. Called by vocab.ts. The rule: the concatenation over a sequence equals what the
// Rust `tokenizers` library decodes at once; a decoder for which that cannot hold is refused by its name.
export type Decoder = {
  /** UTF-8 (or a part of it) that the token contributes. */
  bytes(token: string): Uint8Array
  /** The byte of a `<0xNN>` token; -1 for every other token and for vocabularies without byte fallback. */
  byte(token: string): number
  byteFallback: boolean
  start: TextStart
}

/** What happens at the start of the text only. */
export type TextStart = {
  /** Up to `count` times `content` is cut from the start of the text (SentencePiece's leading space). */
  strip: { content: string; count: number }
  /** Metaspace: the first token loses its spaces. */
  firstTokenDropsSpaces: boolean
}

type Stage = Record<string, unknown> & { type: string }

const utf8 = new TextEncoder()

/** @throws Error naming the decoder that is not supported */
export function parseDecoder(json: unknown): Decoder {
  const replacements: ((piece: string) => string)[] = []
  const start: TextStart = { strip: { content: ' ', count: 0 }, firstTokenDropsSpaces: false }
  let byteLevel = false
  let byteFallback = false
  let fused = false
  for (const stage of stages(json)) {
    if (fused && stage.type !== 'Strip' && stage.type !== 'Fuse')
      throw refused(stage.type, 'after the tokens are fused')
    if (stage.type === 'ByteLevel') byteLevel = fused = true
    else if (stage.type === 'ByteFallback') byteFallback = true
    else if (stage.type === 'Fuse') fused = true
    else if (stage.type === 'Replace') replacements.push(replacement(stage))
    else if (stage.type === 'Strip' && fused) start.strip = stripOfText(stage)
    else if (stage.type === 'Strip') replacements.push(stripOfToken(stage))
    else if (stage.type === 'Metaspace') {
      const symbol = typeof stage.replacement === 'string' ? stage.replacement : '▁'
      start.firstTokenDropsSpaces =
        (stage.prepend_scheme ?? stage.add_prefix_space) !== 'never' && stage.add_prefix_space !== false
      replacements.push((piece) => piece.replaceAll(symbol, ' '))
    } else throw refused(stage.type)
  }
  const text = (token: string) => replacements.reduce((piece, apply) => apply(piece), token)
  return {
    bytes: byteLevel ? (token) => byteLevelBytes(text(token)) : (token) => utf8.encode(text(token)),
    byte: byteFallback ? (token) => hexByte(text(token)) : () => -1,
    byteFallback,
    start,
  }
}

function stages(json: unknown): Stage[] {
  if (json === null || json === undefined)
    throw new Error('tokenizer.json: "decoder" is missing, so token ids cannot be turned into text')
  const stage = json as Stage
  if (stage.type !== 'Sequence') return [stage]
  return (stage.decoders as unknown[]).flatMap(stages)
}

function refused(name: string, why = 'here') {
  return new Error(
    `tokenizer.json: the decoder "${name}" is not supported ${why}; supported are ByteLevel, ByteFallback, Replace, Strip, Fuse and Metaspace`,
  )
}

function replacement(stage: Stage): (piece: string) => string {
  const pattern = (stage.pattern as { String?: unknown } | undefined)?.String
  if (typeof pattern !== 'string' || pattern === '')
    throw refused('Replace', 'with a pattern that is not a plain string')
  return (piece) => piece.replaceAll(pattern, String(stage.content))
}

function stripOfText(stage: Stage) {
  if (Number(stage.stop) > 0) throw refused('Strip', 'at the end of the text')
  return { content: String(stage.content), count: Number(stage.start) }
}

function stripOfToken(stage: Stage): (piece: string) => string {
  const content = String(stage.content)
  return (piece) => {
    let from = 0
    let to = piece.length
    for (let i = 0; i < Number(stage.start) && piece.startsWith(content, from); i++) from += content.length
    for (let i = 0; i < Number(stage.stop) && to > from && piece.endsWith(content, to); i++) to -= content.length
    return piece.slice(from, to)
  }
}

/** GPT-2's alphabet: every byte has a printable character; the 68 that are not printable are moved to U+0100 and up. */
const byteOfCharacter = new Map<string, number>()
for (let byte = 0, moved = 0; byte < 256; byte++) {
  const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
  byteOfCharacter.set(String.fromCharCode(printable ? byte : 0x100 + moved++), byte)
}

/** A token with any character outside the alphabet (an added token) stands for its own text. */
function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length)
  for (let i = 0; i < token.length; i++) {
    const byte = byteOfCharacter.get(token[i] as string)
    if (byte === undefined) return utf8.encode(token)
    bytes[i] = byte
  }
  return bytes
}

function hexByte(token: string): number {
  return token.length === 6 && /^<0x[0-9A-Fa-f]{2}>$/.test(token) ? Number.parseInt(token.slice(3, 5), 16) : -1
}
