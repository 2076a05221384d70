import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Device } from '../../engine/native/device.ts'
import {
  assertClose,
  assertSameBits,
  linearIsas as isas,
  numbers,
  open,
  packed,
  poisoned,
  quantised,
  run,
  toBf16,
} from './devices.ts'

const dtypes = ['f32', 'bf16', 'i8'] as const
type Case = { n: number; k: number; tokens: number; dtype: (typeof dtypes)[number]; bias: boolean }

function linear(device: Device, { n, k, tokens, dtype, bias }: Case): Float32Array {
  const weight = packed(device, numbers(n * k, 1), n, k, dtype)
  const y = poisoned(device, [tokens, n])
  const x = device.upload(numbers(tokens * k, 2), [tokens, k])
  run(device, (commands) => commands.linear(y, x, weight, bias ? device.upload(numbers(n, 3)) : null, tokens))
  const result = y.read().slice() as Float32Array
  for (const memory of [weight, x, y]) memory.free()
  return result
}

function exact({ n, k, tokens, dtype, bias }: Case): Float64Array {
  const round = (values: Float32Array, levels: number) =>
    dtype === 'i8' ? quantised(values, k, levels) : dtype === 'bf16' ? values.map(toBf16) : values
  const w = round(numbers(n * k, 1), 127)
  const x = round(numbers(tokens * k, 2), 32512)
  const b = numbers(n, 3)
  return Float64Array.from({ length: tokens * n }, (_, i) => {
    const [row, column] = [Math.floor(i / n), i % n]
    let sum = bias ? b[column]! : 0
    for (let j = 0; j < k; j++) sum += x[row * k + j]! * w[column * k + j]!
    return sum
  })
}

const shapes: [number, number][] = [
  [1, 1],
  [31, 7],
  [33, 64],
  [64, 65],
  [160, 48],
  [300, 129],
]

for (const isa of isas) {
  test(`${isa}: linear equals a float64 loop for odd shapes`, () => {
    const device = open(isa)
    for (const [n, k] of shapes)
      for (const tokens of [1, 2, 13, 40])
        for (const dtype of dtypes) {
          const shape = { n, k, tokens, dtype, bias: tokens % 2 === 1 }
          assertClose(linear(device, shape), exact(shape), 1e-5, JSON.stringify(shape))
        }
  })

  test(`${isa}: a row of linear has the same bits among 1 to 70 rows`, () => {
    const device = open(isa)
    for (const dtype of dtypes) {
      const shape = { n: 170, k: 83, dtype, bias: true }
      const all = linear(device, { ...shape, tokens: 250 })
      for (let tokens = 1; tokens <= 70; tokens++) {
        assertSameBits(linear(device, { ...shape, tokens }), all.subarray(0, tokens * shape.n), `${dtype} ${tokens}`)
      }
    }
  })

  test(`${isa}: linear has the same bits with 1, 2 and 3 threads`, () => {
    for (const dtype of ['bf16', 'i8'] as const) {
      const shape = { n: 1000, k: 100, tokens: 130, dtype, bias: false }
      const [one, two, three] = [1, 2, 3].map((threads) => linear(open(isa, threads), shape))
      assertSameBits(two!, one!)
      assertSameBits(three!, one!)
    }
  })
}

test('every instruction set of one numerics id gives the bits of the plain one, and with f32 and int8 every one', () => {
  const plain = open('plain')
  for (const dtype of dtypes) {
    const shape = { n: 100, k: 301, tokens: 17, dtype, bias: true }
    const expected = linear(plain, shape)
    for (const isa of isas) {
      const device = open(isa)
      const isOther = dtype === 'bf16' && device.info.numerics !== plain.info.numerics
      if (!isOther) assertSameBits(linear(device, shape), expected, `${isa} ${dtype}`)
    }
  }
})

test('the largest sums of int8 are exact', () => {
  const [n, k] = [32, 65536]
  const weight = new Float32Array(n * k).fill(-1)
  for (const isa of isas) {
    const device = open(isa)
    const [w, x, y] = [packed(device, weight, n, k, 'i8'), device.upload(weight, [n, k]), poisoned(device, [2, n])]
    run(device, (commands) => commands.linear(y, x, w, null, 2))
    assertClose(y.read(), new Float32Array(2 * n).fill(k), 1e-6, isa)
    for (const memory of [w, x, y]) memory.free()
  }
})

test('a weight is the same however its rows are loaded, from f32, bf16 or f16', () => {
  const device = open(isas.at(-1)!)
  const [n, k] = [70, 5]
  // Small whole numbers are exact in every type.
  const values = numbers(n * k, 4).map((value) => Math.round(value * 8) + 0)
  const sources = {
    f32: new Uint8Array(values.buffer),
    f16: new Uint8Array(Float16Array.from(values).buffer),
    bf16: new Uint8Array(Uint16Array.from(new Uint32Array(values.buffer), (word) => word >>> 16).buffer),
  }
  const identity = device.upload(
    Float32Array.from({ length: k * k }, (_, i) => (i % (k + 1) === 0 ? 1 : 0)),
    [k, k],
  )
  for (const dtype of dtypes)
    for (const [type, bytes] of Object.entries(sources) as ['f32' | 'f16' | 'bf16', Uint8Array][]) {
      const weight = device.weight(n, k, dtype)
      const rowBytes = bytes.length / n
      for (const [from, to] of [
        [45, 70],
        [0, 3],
        [3, 45],
      ] as const) {
        const shared = new Uint8Array(new SharedArrayBuffer((to - from) * rowBytes))
        shared.set(bytes.subarray(from * rowBytes, to * rowBytes))
        weight.load(from, to - from, shared, type)
      }
      const y = poisoned(device, [k, n])
      run(device, (commands) => commands.linear(y, identity, weight, null, k))
      const kept = dtype === 'i8' ? quantised(values, k) : values
      const columns = Float32Array.from({ length: k * n }, (_, i) => kept[(i % n) * k + Math.floor(i / n)]!)
      assertClose(y.read(), columns, dtype === 'i8' ? 1e-6 : 0, `${type} into ${dtype}`)
    }
})

test('rows beyond the matrix, a wrong number of bytes and an unknown type of weight are refused', () => {
  const device = open('plain')
  const weight = device.weight(4, 2, 'f32')
  assert.throws(() => weight.load(3, 2, new Uint8Array(16), 'f32'), /rows 3 and 2 more of a matrix of 4/)
  assert.throws(() => weight.load(0, 2, new Uint8Array(15), 'f32'), /2 rows of 2 f32 are 16 bytes, not 15/)
  assert.throws(() => device.weight(4, 2, 'f16'), /weights are f32 \(0\), bf16 \(2\) or int8 \(4\)/)
  assert.throws(() => device.weight(4, 65537, 'i8'), /65537 columns of int8; their sums are exact up to 65536/)
  assert.throws(() => device.weight(2 ** 40, 2, 'f32'), /n is 1099511627776, not a 32-bit integer/)
})
