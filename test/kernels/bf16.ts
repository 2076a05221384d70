// Tensors of bf16 for the tests: their numbers in and out as f32.
import type { Device } from '../../engine/native/device.ts'
import type { Tensor } from '../../engine/native/tensor.ts'
import { toBf16 } from './devices.ts'

/** Rounded to nearest, ties to even; NaN stays NaN. */
export function uploadBf16(device: Device, values: Float32Array, shape: number[]): Tensor {
  const tensor = device.alloc(shape, 'bf16')
  const words = new Uint32Array(values.map(toBf16).buffer)
  const halves = Uint16Array.from(words, (word, i) => (Number.isNaN(values[i]) ? 0x7fc0 : word >>> 16))
  device.library.call('ps_memcpy_h2d', device.context, 0, tensor.pointer, halves, halves.byteLength)
  device.library.call('ps_stream_sync', device.context, 0)
  return tensor
}

export function readBf16(device: Device, tensor: Tensor): Float32Array {
  const halves = new Uint16Array(tensor.bytes / 2)
  device.library.call('ps_memcpy_d2h', device.context, 0, halves, tensor.pointer, halves.byteLength)
  device.library.call('ps_stream_sync', device.context, 0)
  return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer)
}
