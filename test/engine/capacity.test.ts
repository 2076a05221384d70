import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type CapacityInput, planCapacity } from '../../engine/capacity.ts'

const GiB = 2 ** 30

/** 8 layers of 4 KV heads of 64 in 2 bytes: 8 KiB a token, 128 KiB a block. */
function input(options: Partial<CapacityInput['options']> = {}, rest: Partial<CapacityInput> = {}): CapacityInput {
  return {
    model: { layers: 8, heads: { query: 8, kv: 4, size: 64 }, maxPositions: 4096 },
    options: {
      blockSize: 16,
      maxNumSeqs: 4,
      maxModelLen: null,
      kvCacheMemoryBytes: null,
      numGpuBlocksOverride: null,
      ...options,
    },
    kvHeadBytes: 2 * 64,
    freeBytes: 10 * GiB,
    weightBytes: 1 * GiB,
    ...rest,
  }
}

test('the cache takes 40 % of what the weights leave, at most 4 GiB', () => {
  const many = { maxNumSeqs: 4096 }
  assert.equal(planCapacity(input(many)).blocks, Math.floor((0.4 * 9 * GiB) / (128 * 1024)))
  assert.equal(planCapacity(input(many, { freeBytes: 100 * GiB })).blocks, (4 * GiB) / (128 * 1024))
})

test('no more blocks than twice what the sequences can use, unless asked for', () => {
  assert.equal(planCapacity(input()).blocks, 2 * 4 * 256)
  assert.equal(planCapacity(input({ kvCacheMemoryBytes: GiB })).blocks, 8192)
  assert.deepEqual(planCapacity(input({ numGpuBlocksOverride: 10 })), {
    blocks: 10,
    blockSize: 16,
    kvTokens: 160,
    maxModelLength: 160,
  })
})

test('the longest sequence is what the model knows and the cache holds', () => {
  assert.equal(planCapacity(input()).maxModelLength, 4096)
  assert.equal(planCapacity(input({ maxModelLen: 1000 })).maxModelLength, 1000)
  assert.throws(
    () => planCapacity(input({ maxModelLen: 5000 })),
    /--max-model-len 5000 is more than the 4096 positions/,
  )
  assert.throws(
    () => planCapacity(input({ maxModelLen: 200, numGpuBlocksOverride: 10 })),
    /--max-model-len 200 needs .* holds 160 tokens: lower it or raise --kv-cache-memory-bytes to 1703936/,
  )
})

test('what cannot fit is refused with the figures', () => {
  assert.throws(
    () => planCapacity(input({}, { weightBytes: 11 * GiB })),
    /weights need 11.00 GiB .* 10.00 GiB are free/,
  )
  assert.throws(
    () => planCapacity(input({ kvCacheMemoryBytes: 20 * GiB })),
    /asks for 20.00 GiB, and 9.00 GiB are free/,
  )
  assert.throws(() => planCapacity(input({ kvCacheMemoryBytes: 1000 })), /gets 1000 bytes, but one block of 16 tokens/)
})
