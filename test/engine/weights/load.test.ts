import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Target, WeightReader } from '../../../engine/weights/load.ts'
import { readTensors } from '../../../engine/weights/safetensors.ts'
import { memorySource, safetensors } from './memory.ts'

const mebibyte = 2 ** 20

/** A matrix of bytes in which every row begins with its number. */
function numbered(rows: number, width: number) {
  const bytes = new Uint8Array(rows * width)
  const view = new DataView(bytes.buffer)
  for (let row = 0; row < rows; row++) view.setUint32(row * width, row)
  return { dtype: 'U8', shape: [rows, width], bytes }
}

test('large tensors arrive in whole rows, each once and in order, in bounded pieces', async () => {
  const source = memorySource({
    'model.safetensors': safetensors({ small: numbered(3, 16), large: numbered(5000, 10_007), tail: numbered(1, 100) }),
  })
  const largest = { piece: 0 }
  const read = source.read
  source.read = function (file, begin, end) {
    largest.piece = Math.max(largest.piece, end - begin)
    return read.call(this, file, begin, end)
  }
  const tensors = await readTensors(source)
  const progress: number[] = []
  const reader = new WeightReader(source, tensors, ({ bytes, total }) => progress.push(bytes / total))
  const next = new Map<string, number>()
  const targets = [...tensors.values()].map((tensor): Target => {
    next.set(tensor.name, 0)
    return {
      tensor,
      take(row, rows, bytes) {
        const width = tensor.shape[1]!
        assert.equal(row, next.get(tensor.name))
        assert.equal(bytes.length, rows * width)
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
        for (let i = 0; i < rows; i++) assert.equal(view.getUint32(i * width), row + i)
        next.set(tensor.name, row + rows)
      },
    }
  })
  source.reads = 0
  await reader.load(targets)
  assert.deepEqual(Object.fromEntries(next), { small: 3, large: 5000, tail: 1 })
  assert.ok(largest.piece <= 16 * mebibyte, `${largest.piece}`)
  assert.equal(source.reads, 3, '48 MiB in pieces of 16, the small tensors in passing')
  assert.deepEqual(progress.toSorted(), progress)
  assert.equal(progress.at(-1), 1)
})

test('tensors that nobody asked for are not read', async () => {
  const source = memorySource({ 'model.safetensors': safetensors({ a: numbered(4, 8), b: numbered(4, 8) }) })
  const tensors = await readTensors(source)
  source.reads = 0
  await new WeightReader(source, tensors).load([])
  assert.equal(source.reads, 0)
})

test('a read that fails fails the load, and the reads behind it do not crash the process', async () => {
  const source = memorySource({
    'model.safetensors': safetensors({ a: numbered(40, mebibyte), b: numbered(40, mebibyte) }),
  })
  const tensors = await readTensors(source)
  source.read = async (_file, begin) => {
    throw new Error(`disk on fire at ${begin}`)
  }
  const targets = [...tensors.values()].map((tensor) => ({ tensor, take: () => assert.fail('nothing was read') }))
  await assert.rejects(new WeightReader(source, tensors).load(targets), /disk on fire/)
  await new Promise((resolve) => setImmediate(resolve))
})
