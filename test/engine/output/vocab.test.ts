import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Vocab } from '../../../engine/output/vocab.ts'

const tokenizer = (decoder: unknown, vocab: unknown = { a: 0 }) =>
  JSON.stringify({ model: { type: 'BPE', vocab }, decoder })

test('a decoder that is not known is refused by its name', () => {
  assert.throws(
    () => new Vocab(tokenizer({ type: 'WordPiece', prefix: '##' })),
    /the decoder "WordPiece" is not supported/,
  )
  const nested = { type: 'Sequence', decoders: [{ type: 'Fuse' }, { type: 'CTC' }] }
  assert.throws(() => new Vocab(tokenizer(nested)), /the decoder "CTC" is not supported/)
})

test('a decoder that cannot be streamed is refused with the reason', () => {
  const trailing = {
    type: 'Sequence',
    decoders: [{ type: 'Fuse' }, { type: 'Strip', content: ' ', start: 0, stop: 1 }],
  }
  assert.throws(() => new Vocab(tokenizer(trailing)), /"Strip" is not supported at the end of the text/)
  const late = {
    type: 'Sequence',
    decoders: [{ type: 'Fuse' }, { type: 'Replace', pattern: { String: 'a' }, content: '' }],
  }
  assert.throws(() => new Vocab(tokenizer(late)), /"Replace" is not supported after the tokens are fused/)
  const regex = { type: 'Replace', pattern: { Regex: 'a+' }, content: '' }
  assert.throws(
    () => new Vocab(tokenizer(regex)),
    /"Replace" is not supported with a pattern that is not a plain string/,
  )
})

test('a tokenizer without decoder or vocabulary is refused', () => {
  assert.throws(() => new Vocab(tokenizer(null)), /"decoder" is missing/)
  assert.throws(() => new Vocab(JSON.stringify({ decoder: { type: 'ByteLevel' } })), /"model.vocab" is missing/)
  assert.throws(() => new Vocab(tokenizer({ type: 'ByteLevel' }, { a: -1 })), /the id -1 of token "a"/)
})

test('tokens report their own bytes, whole characters or not', () => {
  const vocab = new Vocab(tokenizer({ type: 'ByteLevel' }, { Ġa: 0, â: 2 }))
  assert.deepEqual([...vocab.bytes(0)], [0x20, 0x61])
  assert.deepEqual([...vocab.bytes(1)], [])
  assert.deepEqual([...vocab.bytes(2)], [0xe2])
  assert.equal(vocab.text(2), null)
  assert.equal(vocab.has(1), false)
  assert.equal(vocab.size, 3)
})

test('added tokens take the ids that the encoder gives them, whatever ids are written', () => {
  const added_tokens = [
    { id: 0, content: '<s>', special: true },
    { id: 1, content: 'b', special: false },
    { id: 9, content: '<pad>', special: true },
  ]
  const model = { type: 'BPE', vocab: { a: 0, b: 1 } }
  const vocab = new Vocab(JSON.stringify({ model, added_tokens, decoder: { type: 'ByteLevel' } }))
  assert.deepEqual(
    [0, 1, 2, 3].map((id) => vocab.text(id)),
    ['a', 'b', '<s>', '<pad>'],
  )
  assert.deepEqual(
    [0, 1, 2, 3].map((id) => vocab.isSpecial(id)),
    [false, false, true, true],
  )
})
