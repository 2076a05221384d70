// What the kernel tests share: the instruction sets that this machine has, devices in debug mode, reproducible numbers
// and the comparison with an exact result. Op tests compare with a naive float64 loop of their own.
import assert from 'node:assert/strict'
import { after } from 'node:test'
import { Device } from '../../engine/native/device.ts'
import type { Backend } from '../../engine/native/location.ts'
import { Commands } from '../../engine/native/ops.ts'
import type { Tensor, Weight } from '../../engine/native/tensor.ts'
import { buildKernels } from '../../scripts/build.ts'
import { buildCuda, buildEmulated } from '../../scripts/kernels/cuda.ts'

/** BACKEND=cuda or emulated runs the op tests on the CUDA kernels: on this machine's GPU, or on its CPU. */
export const backend = (process.env.BACKEND ?? 'cpu') as Backend
await { cpu: buildKernels, cuda: () => buildCuda({ targets: ['native'] }), emulated: buildEmulated }[backend]()

export type Isa = 'plain' | 'avx2' | 'avx512'
const opened: Device[] = []
after(() => {
  for (const device of opened) device.close()
})

/** A GPU has one instruction set, whatever isa says, and is deterministic here, as the CPU always is. */
export function open(isa: Isa, threads = 2, debug = true): Device {
  const device = Device.open({ backend, threads, isa, debug, deterministic: true })
  opened.push(device)
  return device
}

export const isas: Isa[] = (['plain', 'avx2', 'avx512'] as const).filter((isa) => {
  if (backend !== 'cpu') return isa === 'plain'
  try {
    Device.open({ backend: 'cpu', threads: 1, isa }).close()
    return true
  } catch (error) {
    assert.match((error as Error).message, /this machine has no|this library has auto/)
    return false
  }
})

export function run(device: Device, append: (commands: Commands) => void): void {
  const commands = new Commands(device)
  append(commands)
  commands.run()
}

/** Uniform in (-scale, scale), the same for the same seed (mulberry32). */
export function numbers(length: number, seed: number, scale = 1): Float32Array {
  let state = seed
  return Float32Array.from({ length }, () => {
    state = (state + 0x6d2b79f5) | 0
    let x = Math.imul(state ^ (state >>> 15), 1 | state)
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x
    return scale * (((x ^ (x >>> 14)) >>> 0) / 2 ** 31 - 1)
  })
}

/** Filled with NaN, so that what an op leaves out is seen. */
export function poisoned(device: Device, shape: number[]): Tensor {
  const tensor = device.alloc(shape, 'f32')
  tensor.write(new Float32Array(tensor.bytes / 4).fill(Number.NaN))
  return tensor
}

export function packed(device: Device, values: Float32Array, n: number, k: number, dtype: 'f32' | 'bf16'): Weight {
  const weight = device.weight(n, k, dtype)
  weight.load(0, n, new Uint8Array(values.buffer, values.byteOffset, values.byteLength), 'f32')
  return weight
}

export function toBf16(value: number): number {
  const word = new Uint32Array(Float32Array.of(value).buffer)[0]!
  return new Float32Array(Uint32Array.of(((word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000) >>> 0).buffer)[0]!
}

export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  what = '',
): void {
  assert.equal(actual.length, expected.length)
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(actual[i]! - expected[i]!)
    assert.ok(
      error <= tolerance * Math.max(1, Math.abs(expected[i]!)),
      `${what}[${i}] is ${actual[i]}, not ${expected[i]}`,
    )
  }
}

/** Equal bit for bit, the sign of a zero and NaN included. */
export function assertSameBits(
  actual: Int32Array | Float32Array,
  expected: Int32Array | Float32Array,
  what = '',
): void {
  const bits = (array: Int32Array | Float32Array) => new Int32Array(array.buffer, array.byteOffset, array.length)
  const [a, b] = [bits(actual), bits(expected)]
  assert.equal(a.length, b.length, what)
  const at = a.findIndex((word, i) => word !== b[i])
  assert.ok(at < 0, `${what}[${at}] is ${actual[at]}, not ${expected[at]}`)
}
