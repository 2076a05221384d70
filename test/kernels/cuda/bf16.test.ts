// What only the CUDA kernels do: activations in bf16, attention on tensor cores, products for few rows. In emulation, or
// on this machine's GPU with BACKEND=cuda.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { Device } from '../../../engine/native/device.ts'
import type { Commands } from '../../../engine/native/ops.ts'
import type { Tensor } from '../../../engine/native/tensor.ts'
import { buildCuda, buildEmulated } from '../../../scripts/kernels/cuda.ts'
import { readBf16, uploadBf16 } from '../bf16.ts'
import { assertClose, assertSameBits, numbers, packed, poisoned, run, toBf16 } from '../devices.ts'
import { attend, exactAttention, type Layout, plainOptions } from '../paged.ts'

const backend = process.env.BACKEND === 'cuda' ? 'cuda' : 'emulated'
await { cuda: () => buildCuda({ targets: ['native'] }), emulated: buildEmulated }[backend]()
const device = Device.open({ backend, threads: 0, debug: true, deterministic: true })
const fastest = Device.open({ backend, threads: 0, debug: true })
after(() => {
  device.close()
  fastest.close()
})

/** The op on f32 tensors that hold bf16 numbers, and on bf16 tensors: equal up to one rounding of the output. */
function assertRoundsOnly(
  inputs: [values: Float32Array, shape: number[]][],
  outShape: number[],
  op: (commands: Commands, out: Tensor, ...inputs: Tensor[]) => void,
): void {
  const rounded = inputs.map(([values, shape]) => [values.map(toBf16), shape] as const)
  const wide = poisoned(device, outShape)
  const narrow = uploadBf16(device, new Float32Array(wide.bytes / 4).fill(Number.NaN), outShape)
  run(device, (commands) => op(commands, wide, ...rounded.map(([values, shape]) => device.upload(values, [...shape]))))
  run(device, (commands) =>
    op(commands, narrow, ...rounded.map(([values, shape]) => uploadBf16(device, values, [...shape]))),
  )
  assertSameBits(readBf16(device, narrow), (wide.read() as Float32Array).map(toBf16))
}

test('norm, rope, activation, add and gather in bf16 are those of f32, rounded once', () => {
  const [tokens, width] = [5, 40]
  const weight = device.upload(numbers(width, 3))
  const x: [Float32Array, number[]] = [numbers(tokens * width, 1, 3), [tokens, width]]
  assertRoundsOnly([x], [tokens, width], (commands, out, input) =>
    commands.rmsNorm(out, input, null, weight, tokens, 1e-5),
  )
  for (const activation of ['silu', 'gelu_tanh', 'gelu'] as const)
    assertRoundsOnly(
      [[numbers(tokens * 2 * width, 4, 5), [tokens, 2 * width]]],
      [tokens, width],
      (commands, out, input) => commands.gatedActivation(out, input, tokens, activation),
    )
  const index = device.upload(Int32Array.of(4, 0, 4))
  assertRoundsOnly([x], [3, width], (commands, out, input) => commands.gatherRows(out, input, index, 3))
  const rows = device.upload(Int32Array.from({ length: tokens }, (_, i) => i))
  const y: [Float32Array, number[]] = [numbers(tokens * width, 2), [tokens, width]]
  assertRoundsOnly([x, y], [tokens, width], (commands, out, input, other) => {
    commands.gatherRows(out, input, rows, tokens)
    commands.add(out, other, tokens * width)
  })
  const heads = { query: 3, kv: 1, size: 8 }
  const table = device.upload(numbers(11 * 8, 6), [11, 8])
  assertRoundsOnly([x], [tokens, width], (commands, out, input) => {
    commands.gatherRows(out, input, rows, tokens)
    commands.rope(out, rows, table, tokens, heads, { size: 8, interleaved: false })
  })
})

test('the residual is kept as it was rounded, and the norm is taken of that', () => {
  const width = 33
  const [x, before] = [numbers(width, 1).map(toBf16), numbers(width, 2, 100).map(toBf16)]
  const residual = uploadBf16(device, before, [1, width])
  const out = uploadBf16(device, x, [1, width])
  run(device, (commands) =>
    commands.rmsNorm(out, uploadBf16(device, x, [1, width]), residual, device.upload(numbers(width, 3)), 1, 1e-5),
  )
  const sums = x.map((value, i) => toBf16(value + before[i]!))
  assertSameBits(readBf16(device, residual), sums)
  const inverse = 1 / Math.sqrt(sums.reduce((sum, each) => sum + each * each, 0) / width + 1e-5)
  assertClose(
    readBf16(device, out),
    sums.map((value, i) => value * inverse * numbers(width, 3)[i]!),
    2 ** -8,
  )
})

for (const [n, k] of [
  [33, 64],
  [70, 128],
  [50, 83],
] as const) {
  test(`linear from and to bf16 is that of f32, rounded once, for [${n}, ${k}] and 1 to 130 rows`, () => {
    const weight = packed(device, numbers(n * k, 1), n, k, 'bf16')
    const bias = device.upload(numbers(n, 3))
    for (const tokens of [1, 16, 17, 64, 65, 130])
      assertRoundsOnly([[numbers(tokens * k, 2), [tokens, k]]], [tokens, n], (commands, out, x) =>
        commands.linear(out, x, weight, bias, tokens),
      )
  })

  test(`without deterministic mode, linear equals a float64 loop for [${n}, ${k}] and 1 to 9 rows`, () => {
    const [w, b] = [numbers(n * k, 1), numbers(n, 3)]
    const weight = packed(fastest, w, n, k, 'bf16')
    for (let tokens = 1; tokens <= 9; tokens++) {
      const x = numbers(tokens * k, tokens)
      const out = poisoned(fastest, [tokens, n])
      const bias = tokens % 2 === 1 ? fastest.upload(b) : null
      run(fastest, (commands) => commands.linear(out, fastest.upload(x, [tokens, k]), weight, bias, tokens))
      const expected = Float64Array.from({ length: tokens * n }, (_, i) => {
        const [row, column] = [Math.floor(i / n), i % n]
        let sum = bias ? b[column]! : 0
        for (let j = 0; j < k; j++) sum += toBf16(x[row * k + j]!) * toBf16(w[column * k + j]!)
        return sum
      })
      assertClose(out.read(), expected, 1e-5, `${tokens} rows`)
    }
  })
}

const bf16 = { kv: 'bf16', activations: 'bf16' } as const

test('attention on tensor cores equals a float64 loop up to the rounding of weights and output', () => {
  const cases: Layout[] = [
    { heads: { query: 1, kv: 1, size: 8 }, length: 1, blockSize: 16, ...bf16 },
    { heads: { query: 4, kv: 4, size: 24 }, length: 37, blockSize: 5, ...bf16 },
    { heads: { query: 8, kv: 2, size: 64 }, length: 67, blockSize: 16, ...bf16 },
    { heads: { query: 7, kv: 1, size: 80 }, length: 40, blockSize: 1, ...bf16 },
    { heads: { query: 1, kv: 1, size: 128 }, length: 270, blockSize: 32, ...bf16 },
  ]
  for (const layout of cases)
    for (const options of [plainOptions, { scale: 0.1, softcap: 3, window: 33 }]) {
      const chunks = layout.length > 3 ? [layout.length - 2, 1, 1] : [layout.length]
      const actual = attend(device, layout, options, chunks)
      assertClose(actual, exactAttention(layout, options), 1e-2, JSON.stringify({ layout, options }))
    }
})

test('attention on tensor cores: prefill, chunks, decode and shuffled blocks give the same bits', () => {
  const long: Layout = { heads: { query: 3, kv: 1, size: 24 }, length: 530, blockSize: 16, ...bf16 }
  const order = Array.from({ length: 34 }, (_, i) => (i * 7) % 34)
  for (const options of [plainOptions, { ...plainOptions, window: 100 }]) {
    const whole = attend(device, long, options, [530])
    // Up to five rows are one small tile, which is cut by partitions.
    assertSameBits(attend(device, long, options, [1, 200, 7, 2, 255, 1, 1, 63]), whole, 'chunks and decode')
    assertSameBits(attend(device, long, options, [250, 275, 3, 1, 1], order), whole, 'a shuffled table')
    assertSameBits(attend(device, { ...long, blockSize: 7 }, options, [500, 5, 25]), whole, 'blocks of 7')
  }
})

test('tensors of a GPU are copied out and in, keep their rows, and cannot be used after they were freed', () => {
  const tensor = device.alloc([3, 2], 'f32')
  const copy = tensor.read()
  tensor.write(Float32Array.of(1, 2), 4)
  assert.deepEqual(Array.from(copy), [0, 0, 0, 0, 0, 0])
  assert.deepEqual(Array.from(tensor.rows(1, 3).rows(1, 2).read()), [1, 2])
  assert.throws(
    () => tensor.write(Float32Array.of(1, 2), 5),
    /write of 8 bytes at 20 into a tensor \[3,2\] of 24 bytes/,
  )
  const rows = tensor.rows(0, 1)
  rows.free()
  tensor.free()
  tensor.free()
  for (const freed of [tensor, rows]) assert.throws(() => freed.read(), /is used after it was freed/)
})
