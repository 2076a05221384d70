import { test } from 'node:test'
import type { Device } from '../../engine/native/device.ts'
import { assertClose, assertSameBits, isas, numbers, open, poisoned, run } from './devices.ts'
import { attend, exactAttention, type KvDType, type Layout, plainOptions } from './paged.ts'

const grouped = { query: 6, kv: 2, size: 24 }
/** More than two partitions of 256. */
const long: Layout = { heads: grouped, length: 530, blockSize: 16, kv: 'bf16' }

function shuffled(count: number): number[] {
  const keys = numbers(2 * count, 9)
  return Array.from({ length: 2 * count }, (_, i) => i)
    .sort((a, b) => keys[a]! - keys[b]!)
    .slice(0, count)
}

for (const isa of isas) {
  test(`${isa}: attention equals a float64 loop over head sizes, groups, block sizes and types of cache`, () => {
    const device = open(isa)
    const cases: [heads: Layout['heads'], length: number, blockSize: number, kv: KvDType][] = [
      [{ query: 1, kv: 1, size: 8 }, 1, 16, 'f32'],
      [{ query: 4, kv: 4, size: 8 }, 37, 5, 'f32'],
      [{ query: 9, kv: 3, size: 64 }, 130, 16, 'bf16'],
      [{ query: 7, kv: 1, size: 100 }, 40, 1, 'f16'],
      [{ query: 2, kv: 1, size: 128 }, 300, 32, 'f32'],
      [grouped, 290, 24, 'bf16'],
    ]
    for (const [heads, length, blockSize, kv] of cases) {
      const layout = { heads, length, blockSize, kv }
      const expected = exactAttention(layout, plainOptions)
      assertClose(attend(device, layout, plainOptions, [length]), expected, 1e-5, JSON.stringify(layout))
    }
  })

  test(`${isa}: a window and a softcap are applied`, () => {
    const device = open(isa)
    const layout: Layout = { ...long, length: 300 }
    for (const options of [
      { scale: 0.5, softcap: 3, window: 0 },
      { scale: 0.5, softcap: 0, window: 1 },
      { scale: 0.5, softcap: 0, window: 21 },
      { scale: 0.2, softcap: 5, window: 270 },
    ]) {
      const expected = exactAttention(layout, options)
      assertClose(attend(device, layout, options, [250, 50]), expected, 1e-5, JSON.stringify(options))
    }
  })

  test(`${isa}: one prefill, chunks, single tokens and a shuffled block table give the same bits`, () => {
    const device = open(isa)
    for (const options of [plainOptions, { ...plainOptions, window: 100 }]) {
      const whole = attend(device, long, options, [long.length])
      const ones = Array<number>(long.length).fill(1)
      assertSameBits(attend(device, long, options, [1, 200, 7, 255, 67]), whole, 'chunks')
      assertSameBits(attend(device, long, options, ones), whole, 'one by one')
      const blocks = Math.ceil(long.length / long.blockSize)
      assertSameBits(attend(device, long, options, [500, 30], shuffled(blocks)), whole, 'shuffled blocks')
      for (const blockSize of [7, 64]) {
        assertSameBits(attend(device, { ...long, blockSize }, options, [long.length]), whole, `blocks of ${blockSize}`)
      }
    }
  })

  test(`${isa}: a sequence has the same bits alone and in a batch, with 1, 2 and 3 threads`, () => {
    const alone = attend(open(isa, 1), long, plainOptions, [long.length])
    for (const threads of [1, 2, 3]) assertSameBits(batched(open(isa, threads)), alone, `${threads} threads`)
  })
}

test('every instruction set gives the bits of the plain one', () => {
  const plain = attend(open('plain'), long, plainOptions, [long.length])
  for (const isa of isas) assertSameBits(attend(open(isa), long, plainOptions, [530]), plain, isa)
})

/** The sequence `long` as the middle one of three; the others have a past of their own and garbage in their blocks. */
function batched(device: Device): Float32Array {
  const { heads, length, blockSize, kv } = long
  const width = (heads.query + 2 * heads.kv) * heads.size
  const blocks = Math.ceil(length / blockSize)
  const shape = [2 + blocks, heads.kv, blockSize, heads.size]
  const cache = { k: device.alloc(shape, kv), v: device.alloc(shape, kv), blockSize }
  const rows = length + 4
  const qkv = new Float32Array(rows * width).fill(0.5)
  qkv.set(numbers(length * width, 1, 2), 3 * width)
  const slots = Int32Array.from({ length: rows }, (_, i) => {
    if (i < 3) return i + 2
    return i < 3 + length ? 2 * blockSize + i - 3 : blockSize
  })
  const table = new Int32Array(3 * blocks)
  table.set(
    Array.from({ length: blocks }, (_, i) => i + 2),
    blocks,
  )
  table[2 * blocks] = 1
  const out = poisoned(device, [rows, heads.query * heads.size])
  const input = device.upload(qkv)
  const batch = {
    queryStart: device.upload(Int32Array.of(0, 3, 3 + length, rows)),
    kvLength: device.upload(Int32Array.of(5, length, 1)),
    blockTable: device.upload(table),
    tableStride: blocks,
    sequences: 3,
  }
  run(device, (commands) => {
    commands.kvWrite(cache, input, device.upload(slots), rows, heads)
    commands.attention(out, input, cache, batch, heads, plainOptions)
  })
  return out.rows(3, 3 + length).read() as Float32Array
}

test('blocks are copied whole, in k and in v, pair after pair', () => {
  const device = open(isas.at(-1)!)
  const shape = [4, 2, 3, 8]
  const [k, v] = [numbers(192, 1), numbers(192, 2)]
  const cache = { k: device.upload(k, shape), v: device.upload(v, shape), blockSize: 3 }
  run(device, (commands) => commands.kvCopyBlocks(cache, device.upload(Int32Array.of(0, 3, 1, 2, 3, 1)), 3))
  const copied = (before: Float32Array) => {
    const expected = before.slice()
    expected.copyWithin(3 * 48, 0, 48)
    expected.copyWithin(2 * 48, 48, 96)
    expected.copyWithin(48, 0, 48)
    return expected
  }
  assertSameBits(cache.k.read(), copied(k), 'k')
  assertSameBits(cache.v.read(), copied(v), 'v')
})
