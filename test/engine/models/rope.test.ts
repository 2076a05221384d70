import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cosSinTable, type RopeConfig } from '../../../engine/models/rope.ts'

const size = 8
const base: RopeConfig = { theta: 10000, size, scaling: { type: 'default' } }

/** The angle in the table at a position, for small angles. */
function angles(rope: RopeConfig, position: number): number[] {
  const row = cosSinTable(rope, position + 1).subarray(position * size, (position + 1) * size)
  return Array.from({ length: size / 2 }, (_, i) => Math.atan2(row[size / 2 + i]!, row[i]!))
}

function assertClose(actual: number[], expected: number[]): void {
  for (const [i, value] of expected.entries())
    assert.ok(Math.abs(actual[i]! - value) < 1e-6, `${actual} for ${expected}`)
}

test('dimension pair i turns by theta^(-2i/size) per position', () => {
  assertClose(angles(base, 0), [0, 0, 0, 0])
  assertClose(angles(base, 1), [1, 0.1, 0.01, 0.001])
  assertClose(angles(base, 3), [3, 0.3, 0.03, 0.003])
})

test('linear scaling slows every pair by the factor', () => {
  assertClose(angles({ ...base, scaling: { type: 'linear', factor: 2 } }, 1), [0.5, 0.05, 0.005, 0.0005])
})

test('llama3 scaling keeps fast pairs, slows slow ones by the factor and blends those between', () => {
  const scaling = { type: 'llama3', factor: 8, lowFrequency: 1, highFrequency: 4, originalPositions: 1000 } as const
  // Turns within 1000 positions: 159, 15.9, 1.59, 0.159; the third is 0.197 of the way from 1 to 4.
  const smooth = (1000 * 0.01) / (2 * Math.PI * 3) - 1 / 3
  assertClose(angles({ ...base, scaling }, 1), [1, 0.1, ((1 - smooth) * 0.01) / 8 + smooth * 0.01, 0.001 / 8])
})

test('angles far out are rounded to float32 before the cosine, as in the code models were trained with', () => {
  const row = cosSinTable({ ...base, size: 4 }, 100_001).subarray(400_000)
  assert.equal(row[1], Math.fround(Math.cos(Math.fround(100_000 * Math.fround(0.01)))))
})
