import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { openFolder } from '../../../engine/weights/folder.ts'
import { readTensors } from '../../../engine/weights/safetensors.ts'
import { ModelError } from '../../../engine/weights/source.ts'
import { memorySource, safetensors } from './memory.ts'

const fixtures = new URL('../../fixtures/golden/', import.meta.url)
const pair = {
  a: { dtype: 'F32', shape: [2, 3], bytes: new Uint8Array(24) },
  b: { dtype: 'BF16', shape: [5], bytes: new Uint8Array(10) },
}
const a = { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] }
const b = { dtype: 'BF16', shape: [5], data_offsets: [24, 34] }

function read(file: Uint8Array) {
  return readTensors(memorySource({ 'model.safetensors': file }))
}

test('tensors of a well-formed file have their place in the file', async () => {
  const file = safetensors(pair)
  const tensors = await read(file)
  const begin = file.length - 34
  assert.deepEqual(tensors.get('a'), {
    name: 'a',
    file: 'model.safetensors',
    dtype: 'F32',
    shape: [2, 3],
    begin,
    end: begin + 24,
  })
  assert.equal(tensors.get('b')!.end, file.length)
})

test('metadata, empty tensors, scalars and names of Object.prototype are fine', async () => {
  const empty = { dtype: 'F32', shape: [0, 4], data_offsets: [0, 0] }
  const header = `{"__metadata__":{"format":"pt"},"__proto__":${JSON.stringify(empty)},"constructor":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}`
  const file = Buffer.concat([
    Buffer.from(BigUint64Array.of(BigInt(header.length)).buffer),
    Buffer.from(header),
    Buffer.alloc(8),
  ])
  assert.deepEqual([...(await read(file)).keys()].sort(), ['__proto__', 'constructor'])
})

const wrongHeaders: [string, unknown, RegExp][] = [
  ['a list', [], /header is not a JSON object/],
  ['null', null, /header/],
  ['a tensor that is a number', { a: 7, b }, /tensor a is not described/],
  ['an unknown dtype', { a: { ...a, dtype: 'F33' }, b }, /tensor a has unknown dtype F33/],
  ['a dtype of Object.prototype', { a: { ...a, dtype: 'constructor' }, b }, /unknown dtype/],
  ['no dtype', { a: { shape: [2, 3], data_offsets: [0, 24] }, b }, /unknown dtype missing/],
  ['a negative size', { a: { ...a, shape: [-2, -3] }, b }, /tensor a shape \[-2,-3\]/],
  ['a fractional size', { a: { ...a, shape: [1.5, 4] }, b }, /tensor a shape/],
  ['a size of text', { a: { ...a, shape: ['2', 3] }, b }, /tensor a shape/],
  [
    'sizes whose product wraps at 2^64',
    { a: { ...a, shape: [2 ** 32, 2 ** 32] }, b },
    /takes 73786976294838206464 bytes/,
  ],
  ['a size above 2^53', { a: { ...a, shape: [2 ** 60] }, b }, /tensor a shape/],
  ['too many dimensions', { a: { ...a, shape: Array(1000).fill(2 ** 50) }, b }, /tensor a shape/],
  ['the wrong dtype for its bytes', { a: { ...a, dtype: 'F16' }, b }, /takes 12 bytes, but data_offsets give 24/],
  ['three offsets', { a: { ...a, data_offsets: [0, 24, 34] }, b }, /data_offsets \[0,24,34\]/],
  ['offsets backwards', { a: { ...a, data_offsets: [24, 0] }, b }, /give -24/],
  ['an offset below 0', { a: { ...a, data_offsets: [-24, 0] }, b }, /data_offsets/],
  ['a gap', { a, b: { ...b, data_offsets: [26, 36] } }, /tensor b begins at byte/],
  ['overlapping tensors', { a, b: { ...b, data_offsets: [20, 30] } }, /tensor b begins at byte/],
  [
    'a tensor behind the end',
    { a, b, c: { dtype: 'U8', shape: [9], data_offsets: [34, 43] } },
    /tensor c ends at byte/,
  ],
  ['too few tensors', { a }, /10 bytes after the last tensor/],
]
for (const [what, header, message] of wrongHeaders) {
  test(`a header with ${what} is refused`, async () => {
    await assert.rejects(read(safetensors(pair, header)), (error: Error) => {
      assert.ok(error instanceof ModelError, error.stack)
      assert.match(error.message, message)
      assert.match(error.message, /^model\.safetensors/)
      return true
    })
  })
}

test('a header length beyond the limit or the file is refused without reading it', async () => {
  for (const length of [2n ** 63n, 2n ** 64n - 1n, 100_000_001n, 1000n]) {
    const source = memorySource({
      'model.safetensors': Buffer.concat([Buffer.from(BigUint64Array.of(length).buffer), Buffer.from('{}')]),
    })
    await assert.rejects(readTensors(source), /^ModelError: model\.safetensors: header length/)
    assert.equal(source.reads, 1)
  }
  await assert.rejects(read(Buffer.from('GGUF')), /4 bytes, too few/)
})

/** xorshift32: the same mutations in every run. */
function randomIntegers(seed: number) {
  let state = seed
  return (below: number) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

test('2000 mutated files are either refused by name or describe only bytes they have', async () => {
  const original = readFileSync(new URL('llama3_rope_tied/model.safetensors', fixtures))
  const headerEnd = 8 + Number(original.readBigUInt64LE(0))
  const tokens = [
    '"',
    '{',
    '[',
    ',',
    '-',
    '9',
    '0',
    'e',
    '1e99',
    'null',
    '\\u0000',
    '\u00ff',
    '184467440737095516',
    'F32',
    ' ',
  ]
  const random = randomIntegers(0x5afe)
  let refused = 0
  for (let round = 0; round < 2000; round++) {
    let file = Buffer.from(original)
    for (let edits = 1 + random(3); edits > 0; edits--) {
      const at = random(headerEnd)
      switch (random(5)) {
        case 0:
          file[at] = random(256)
          break
        case 1:
          file.write(tokens[random(tokens.length)]!, at)
          break
        case 2:
          file = file.subarray(0, random(file.length))
          break
        case 3:
          file = Buffer.concat([file.subarray(0, at), file.subarray(at + 1 + random(16))])
          break
        case 4:
          file = Buffer.concat([file, Buffer.alloc(1 + random(64))])
      }
    }
    try {
      const tensors = await read(file)
      for (const { begin, end } of tensors.values()) assert.ok(begin >= 8 && begin <= end && end <= file.length)
    } catch (error) {
      assert.ok(error instanceof ModelError, `round ${round}: ${error}`)
      assert.match(error.message, /^model\.safetensors/)
      refused++
    }
  }
  assert.ok(refused > 1000, `${refused} refused`)
})

test('shards are joined by their index', async () => {
  const source = await openFolder(new URL('llama_mha_sharded', fixtures).pathname)
  const tensors = await readTensors(source)
  await source.close()
  assert.equal(tensors.size, 21)
  assert.equal(tensors.get('lm_head.weight')!.file, 'model-00002-of-00002.safetensors')
})

test('an index that does not fit its shards is refused', async () => {
  const shard = safetensors(pair)
  const withIndex = (weight_map: unknown) =>
    readTensors(
      memorySource({ 'model.safetensors.index.json': JSON.stringify({ weight_map }), 'one.safetensors': shard }),
    )
  assert.equal((await withIndex({ a: 'one.safetensors' })).size, 1)
  await assert.rejects(withIndex({ a: 'two.safetensors' }), /names two\.safetensors, which memory does not have/)
  await assert.rejects(withIndex({ a: '../one.safetensors' }), /names \.\.\/one\.safetensors/)
  await assert.rejects(withIndex({ c: 'one.safetensors' }), /places c in one\.safetensors, which does not hold it/)
  await assert.rejects(withIndex({ a: 7 }), /weight_map\.a.*\(7\)/)
  await assert.rejects(withIndex(undefined), /weight_map.*missing/)
})

test('several files without an index are refused', async () => {
  const shard = safetensors(pair)
  await assert.rejects(
    readTensors(memorySource({ 'x.safetensors': shard, 'y.safetensors': shard })),
    /no model\.safetensors\.index\.json/,
  )
  assert.equal((await readTensors(memorySource({ 'x.safetensors': shard }))).size, 2)
})
