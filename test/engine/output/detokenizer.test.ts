// The detokenizer against what the Rust tokenizers decode (test/fixtures/tokenizers; the whole vocabularies where
// ../shared is present), token by token.
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Detokenizer } from '../../../engine/output/detokenizer.ts'
import { Vocab } from '../../../engine/output/vocab.ts'

const fixtures = new URL('../../fixtures/tokenizers/', import.meta.url)
const shared = new URL('../../../../shared/data/tokenizers/', import.meta.url)

type Case = { ids: number[]; skip: boolean; text: string }

function checkAll(vocab: Vocab, cases: Case[]) {
  for (const { ids, skip, text } of cases) {
    const detokenizer = new Detokenizer(vocab, { skipSpecialTokens: skip })
    const pieces = [...ids.map((id) => detokenizer.push(id)), detokenizer.flush()]
    assert.equal(pieces.join(''), text, `ids ${ids}`)
    for (const piece of pieces) assert.ok(piece.isWellFormed())
  }
}

for (const file of readdirSync(fixtures)) {
  test(`streamed token by token, ${file} decodes as the Rust tokenizers do`, () => {
    const { tokenizer, cases } = JSON.parse(readFileSync(new URL(file, fixtures), 'utf8'))
    assert.ok(cases.length > 100)
    checkAll(new Vocab(JSON.stringify(tokenizer)), cases)
  })
}

test('the whole vocabularies of ../shared decode as the Rust tokenizers do', { skip: !existsSync(shared) }, () => {
  for (const name of readdirSync(shared)) {
    const vocab = new Vocab(readFileSync(new URL(`${name}/tokenizer.json`, shared), 'utf8'))
    const vectors = JSON.parse(readFileSync(new URL(`${name}/vectors.json`, shared), 'utf8'))
    const cases: Case[] = []
    for (const c of [...vectors.encode, ...vectors.decode_random]) {
      cases.push({ ids: c.ids_no_special ?? c.ids, skip: false, text: c.decoded })
      cases.push({ ids: c.ids, skip: true, text: c.decoded_skip_special })
    }
    checkAll(vocab, cases)
  }
})

/** A vocabulary of the 256 byte tokens <0x00>..<0xFF> (ids 0-255) and the given pieces after them. */
function byteFallbackVocab(...pieces: string[]) {
  const hex = (byte: number) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`
  const tokens = [...Array.from({ length: 256 }, (_, byte) => hex(byte)), ...pieces]
  const decoders = [
    { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
    { type: 'ByteFallback' },
    { type: 'Fuse' },
    { type: 'Strip', content: ' ', start: 1, stop: 0 },
  ]
  const model = { type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])) }
  return new Vocab(JSON.stringify({ model, decoder: { type: 'Sequence', decoders } }))
}

test('a character in four byte tokens appears with the last of them', () => {
  const detokenizer = new Detokenizer(byteFallbackVocab(), { skipSpecialTokens: false })
  const pieces = [...Buffer.from('😀é')].map((byte) => detokenizer.push(byte))
  assert.deepEqual(pieces, ['', '', '', '😀', '', 'é'])
  assert.equal(detokenizer.flush(), '')
})

test('broken bytes of a byte-fallback vocabulary become one U+FFFD each, once nothing can mend them', () => {
  const vocab = byteFallbackVocab('▁a', 'b')
  const detokenizer = new Detokenizer(vocab, { skipSpecialTokens: false })
  // e4 bd wait for a third byte; the token "b" (257) ends the hope; f0 9f are cut off by the end.
  const pieces = [0xe4, 0xbd, 257, 0x80, 0xf0, 0x9f].map((id) => detokenizer.push(id))
  assert.deepEqual(pieces, ['', '', '\ufffd\ufffdb', '\ufffd', '', ''])
  assert.equal(detokenizer.flush(), '\ufffd\ufffd')
})

test('only the first token of the text loses its leading space, and not when it continues a prompt', () => {
  const vocab = byteFallbackVocab('▁a', '▁', 'b')
  const [a, space, b] = [256, 257, 258]
  const decode = (ids: number[], prompt: number[]) => {
    const options = { skipSpecialTokens: true, prompt: Uint32Array.from(prompt) }
    const detokenizer = new Detokenizer(vocab, options)
    return ids.map((id) => detokenizer.push(id)).join('')
  }
  assert.equal(decode([a, a], []), 'a a')
  assert.equal(decode([a, a], [b]), ' a a')
  assert.equal(decode([space, a], []), ' a')
  assert.equal(decode([a], [space]), ' a', 'the prompt already gave its space')
  assert.equal(decode([0xa9, b], [b, 0xc3]), 'éb', 'the prompt ends inside a character')
})

test('metaspace drops the spaces of the first token', () => {
  const model = {
    type: 'Unigram',
    vocab: [
      ['▁the', 0],
      ['▁', 0],
      ['cat', 0],
    ],
  }
  const decoder = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true }
  const vocab = new Vocab(JSON.stringify({ model, decoder }))
  const detokenizer = new Detokenizer(vocab, { skipSpecialTokens: false })
  assert.equal([0, 1, 2, 0].map((id) => detokenizer.push(id)).join(''), 'the cat the')
  const never = new Vocab(JSON.stringify({ model, decoder: { ...decoder, prepend_scheme: 'never' } }))
  assert.equal(new Detokenizer(never, { skipSpecialTokens: false }).push(0), ' the')
})

test('a byte-level token outside the alphabet stands for itself, ids without a token for nothing', () => {
  const model = { type: 'BPE', vocab: { Ġhi: 0, Ã: 1, '©': 2 } }
  const added_tokens = [{ id: 3, content: '<|sep 界|>', special: true }]
  const vocab = new Vocab(JSON.stringify({ model, added_tokens, decoder: { type: 'ByteLevel' } }))
  const detokenizer = new Detokenizer(vocab, { skipSpecialTokens: false })
  assert.deepEqual(
    [0, 1, 999, 2, 3].map((id) => detokenizer.push(id)),
    [' hi', '', '', 'é', '<|sep 界|>'],
  )
  const skipping = new Detokenizer(vocab, { skipSpecialTokens: true })
  assert.deepEqual(
    [1, 3, 2].map((id) => skipping.push(id)),
    ['', '', 'é'],
  )
})
