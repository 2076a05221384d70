// Ops that treat every row alone: norm, rope, embedding, gather, activation, add.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Device } from '../../engine/native/device.ts'
import type { Activation } from '../../engine/native/ops.ts'
import { assertClose, assertSameBits, isas, numbers, open, packed, poisoned, run } from './devices.ts'

const widths = [1, 5, 16, 64, 100]
const tokens = 19

function rmsNorm(device: Device, width: number, withResidual: boolean) {
  const x = numbers(tokens * width, 1, 3)
  const out = poisoned(device, [tokens, width])
  const residual = withResidual ? device.upload(numbers(tokens * width, 2)) : null
  const weight = device.upload(numbers(width, 3))
  run(device, (commands) => commands.rmsNorm(out, device.upload(x, [tokens, width]), residual, weight, tokens, 1e-5))
  return { out: out.read() as Float32Array, residual: residual?.read() as Float32Array | undefined }
}

function gatedActivation(device: Device, width: number, activation: Activation): Float32Array {
  const out = poisoned(device, [tokens, width])
  const gateUp = device.upload(numbers(tokens * 2 * width, 4, 9), [tokens, 2 * width])
  run(device, (commands) => commands.gatedActivation(out, gateUp, tokens, activation))
  return out.read() as Float32Array
}

function rope(device: Device, size: number, rotary: number, interleaved: boolean): Float32Array {
  const heads = { query: 3, kv: 1, size }
  const rows = 5 * size
  const qkv = device.upload(numbers(tokens * rows, 5), [tokens, rows])
  const positions = device.upload(Int32Array.from({ length: tokens }, (_, i) => (7 * i) % 11))
  const table = device.upload(numbers(11 * rotary, 6), [11, rotary])
  run(device, (commands) => commands.rope(qkv, positions, table, tokens, heads, { size: rotary, interleaved }))
  return qkv.read() as Float32Array
}

/** Abramowitz and Stegun 7.1.5, summed until nothing changes. */
function erf(x: number): number {
  let [term, sum] = [x, x]
  for (let n = 1; sum !== sum + term; n++) {
    term *= (-x * x) / n
    sum += term / (2 * n + 1)
  }
  return (2 / Math.sqrt(Math.PI)) * sum
}

const activations: Record<Activation, (x: number) => number> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu: (x) => (x < -5.5 ? 0 : x > 5.5 ? x : 0.5 * x * (1 + erf(x / Math.SQRT2))),
}

for (const isa of isas) {
  test(`${isa}: the norm divides by the root mean square, with and without a residual`, () => {
    const device = open(isa)
    for (const width of widths)
      for (const withResidual of [false, true]) {
        const x = Float64Array.from(numbers(tokens * width, 1, 3))
        const [before, weight] = [numbers(tokens * width, 2), numbers(width, 3)]
        if (withResidual) for (let i = 0; i < x.length; i++) x[i]! += before[i]!
        const expected = x.map((value, i) => {
          const row = x.subarray(i - (i % width), i - (i % width) + width)
          const mean = row.reduce((sum, each) => sum + each * each, 0) / width
          return (value / Math.sqrt(mean + 1e-5)) * weight[i % width]!
        })
        const { out, residual } = rmsNorm(device, width, withResidual)
        assertClose(out, expected, 1e-6, `width ${width}`)
        if (residual) assertClose(residual, x, 1e-6, 'residual')
      }
  })

  test(`${isa}: rope turns pairs of the rotary dimensions and leaves the rest and v alone`, () => {
    const device = open(isa)
    for (const [size, rotary] of [
      [8, 8],
      [64, 64],
      [40, 24],
    ] as const)
      for (const interleaved of [false, true]) {
        const [x, table] = [numbers(tokens * 5 * size, 5), numbers(11 * rotary, 6)]
        const expected = Float64Array.from(x)
        for (let row = 0; row < tokens; row++)
          for (let head = 0; head < 4; head++)
            for (let i = 0; i < rotary / 2; i++) {
              const base = (row * 5 + head) * size
              const [a, b] = interleaved ? [base + 2 * i, base + 2 * i + 1] : [base + i, base + i + rotary / 2]
              const angle = ((7 * row) % 11) * rotary + i
              const [cos, sin] = [table[angle]!, table[angle + rotary / 2]!]
              expected[a] = x[a]! * cos - x[b]! * sin
              expected[b] = x[b]! * cos + x[a]! * sin
            }
        assertClose(rope(device, size, rotary, interleaved), expected, 1e-6, `${size} ${rotary} ${interleaved}`)
      }
  })

  test(`${isa}: activations equal their formulas`, () => {
    const device = open(isa)
    for (const width of widths)
      for (const name of Object.keys(activations) as Activation[]) {
        const gateUp = numbers(tokens * 2 * width, 4, 9)
        const expected = Float64Array.from({ length: tokens * width }, (_, i) => {
          const base = Math.floor(i / width) * 2 * width + (i % width)
          return activations[name](gateUp[base]!) * gateUp[base + width]!
        })
        assertClose(gatedActivation(device, width, name), expected, 2e-5, `${name} ${width}`)
      }
  })

  test(`${isa}: embedding and gather give the rows asked for, add adds`, () => {
    const device = open(isa)
    const [n, k] = [77, 21]
    const values = numbers(n * k, 7).map((value) => Math.round(value * 16) + 0)
    const ids = Int32Array.of(76, 0, 31, 32, 33, 0)
    const expected = Float32Array.from(
      { length: ids.length * k },
      (_, i) => values[ids[Math.floor(i / k)]! * k + (i % k)]!,
    )
    const index = device.upload(ids)
    for (const dtype of ['f32', 'bf16'] as const) {
      const out = poisoned(device, [ids.length, k])
      run(device, (commands) => commands.embedding(out, packed(device, values, n, k, dtype), index, ids.length))
      assert.deepEqual(out.read(), expected)
    }
    const out = poisoned(device, [ids.length, k])
    run(device, (commands) => {
      commands.gatherRows(out, device.upload(values, [n, k]), index, ids.length)
      commands.add(out, device.upload(expected), ids.length * k - 1)
    })
    assert.deepEqual(
      out.read(),
      expected.map((value, i) => (i < expected.length - 1 ? 2 * value : value)),
    )
  })
}

test('every f16 number is read as what it is', () => {
  const device = open('plain')
  const halves = new Float16Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer)
  const weight = device.weight(256, 256, 'f32')
  weight.load(0, 256, new Uint8Array(halves.buffer), 'f16')
  const out = poisoned(device, [256, 256])
  const ids = device.upload(Int32Array.from({ length: 256 }, (_, i) => i))
  run(device, (commands) => commands.embedding(out, weight, ids, 256))
  assert.deepEqual(Array.from(out.read()), Array.from(halves))
})

test('every instruction set and number of threads gives the bits of the plain one', () => {
  const results = (device: Device) => [
    rmsNorm(device, 100, true).out,
    rope(device, 40, 24, false),
    rope(device, 40, 24, true),
    ...(Object.keys(activations) as Activation[]).map((name) => gatedActivation(device, 100, name)),
  ]
  const plain = results(open('plain', 1))
  for (const isa of isas)
    for (const threads of [1, 2, 3])
      results(open(isa, threads)).forEach((result, i) => {
        assertSameBits(result, plain[i]!, `${isa} ${i}`)
      })
})
