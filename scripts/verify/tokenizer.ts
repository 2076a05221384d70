// A tokenizer against vectors made by the Rust `tokenizers` library: encoding as the gateway does it, with and without
// special tokens, and decoding token by token with the engine's own table.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { Detokenizer } from '../../engine/output/detokenizer.ts'
import { Vocab } from '../../engine/output/vocab.ts'
import { checkJson, parseJson } from '../../engine/weights/json.ts'
import { Encoder } from '../../gateway/prompt/tokenizer.ts'

const ids = z.array(z.int().nonnegative())
const Decoded = z.object({ decoded: z.string().optional(), decoded_skip_special: z.string().optional() })
const Vectors = z.object({
  /** `decoded` is of ids_no_special, `decoded_skip_special` of ids. */
  encode: z.array(Decoded.extend({ text: z.string(), ids, ids_no_special: ids })).default([]),
  decode_random: z.array(Decoded.extend({ ids })).default([]),
})

export type TokenizerResult = { checks: number; misses: string[] }

export async function verifyTokenizer(folder: string, vectorsFile: string): Promise<TokenizerResult> {
  const json = readFileSync(join(folder, 'tokenizer.json'), 'utf8')
  const vectors = checkJson(vectorsFile, Vectors, parseJson(vectorsFile, readFileSync(vectorsFile, 'utf8')))
  const encoder = new Encoder(json)
  const vocab = new Vocab(json)
  const result: TokenizerResult = { checks: 0, misses: [] }
  const check = (what: string, ours: string, golden: string) => {
    result.checks++
    if (ours !== golden) result.misses.push(`${what}: ${ours} instead of ${golden}`)
  }

  const decode = (ids: number[], skipSpecial: boolean, golden: string | undefined) => {
    if (golden === undefined) return
    const ours = JSON.stringify(decodeAll(vocab, ids, skipSpecial))
    check(`decode ${ids}${skipSpecial ? ' without special tokens' : ''}`, ours, JSON.stringify(golden))
  }
  for (const { text, ids, ids_no_special: alone, decoded, decoded_skip_special: skipped } of vectors.encode) {
    const quoted = JSON.stringify(text)
    check(`encode ${quoted}`, String(await encoder.encode(text, true)), String(ids))
    check(`encode ${quoted} alone`, String(await encoder.encode(text, false)), String(alone))
    decode(alone, false, decoded)
    decode(ids, true, skipped)
  }
  for (const { ids, decoded, decoded_skip_special: skipped } of vectors.decode_random) {
    decode(ids, false, decoded)
    decode(ids, true, skipped)
  }
  return result
}

export function decodeAll(vocab: Vocab, ids: readonly number[], skipSpecialTokens: boolean): string {
  const detokenizer = new Detokenizer(vocab, { skipSpecialTokens })
  return ids.map((id) => detokenizer.push(id)).join('') + detokenizer.flush()
}
