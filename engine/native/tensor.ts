// Device memory with a shape, and matrices packed for the linear op. A tensor may be larger than what an op uses of it.
// On the CPU read() and write() go through a view of the memory itself, nothing is copied twice. free() detaches the
// view: arrays that read() gave are then empty, not windows on memory of others.
import koffi from 'koffi'
import type { Device, DType } from './device.ts'

export const elementBytes: Record<DType, number> = { f32: 4, f16: 2, bf16: 2, i32: 4, i8: 1 }

/** The numbers of pagestream.h. */
export const dtypeCode: Record<DType, number> = { f32: 0, f16: 1, bf16: 2, i32: 3, i8: 4 }

export type Tensor = {
  readonly pointer: number
  readonly shape: readonly number[]
  readonly dtype: DType
  readonly bytes: number
  /** Copies the bytes of `array` to element `offset` and on; an Int32Array may carry floats and the reverse. */
  write(array: Int32Array | Float32Array | Uint32Array, offset?: number): void
  /** The contents, until they change. */
  read(): Int32Array | Float32Array
  /** Rows [from, to) of the first dimension, in the same memory; freeing them frees nothing. */
  rows(from: number, to: number): Tensor
  free(): void
}

export class HostTensor implements Tensor {
  readonly pointer: number
  readonly shape: readonly number[]
  readonly dtype: DType
  readonly bytes: number
  readonly #release: ((pointer: number) => void) | null
  #memory: ArrayBuffer | null
  readonly #begin: number

  constructor(
    pointer: number,
    shape: readonly number[],
    dtype: DType,
    release: ((pointer: number) => void) | null,
    memory?: { buffer: ArrayBuffer; begin: number },
  ) {
    this.pointer = pointer
    this.shape = shape
    this.dtype = dtype
    this.bytes = shape.reduce((product, size) => product * size, elementBytes[dtype])
    this.#release = release
    this.#memory = memory?.buffer ?? (this.bytes > 0 ? koffi.view(pointer, this.bytes) : new ArrayBuffer(0))
    this.#begin = memory?.begin ?? 0
  }

  write(array: Int32Array | Float32Array | Uint32Array, offset = 0): void {
    const begin = offset * elementBytes[this.dtype]
    if (begin + array.byteLength > this.bytes) {
      throw new RangeError(
        `write of ${array.byteLength} bytes at ${begin} into a tensor [${this.shape}] of ${this.bytes} bytes`,
      )
    }
    const from = new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
    new Uint8Array(this.#live(), this.#begin + begin, array.byteLength).set(from)
  }

  read(): Int32Array | Float32Array {
    if (this.dtype === 'f32') return new Float32Array(this.#live(), this.#begin, this.bytes / 4)
    if (this.dtype === 'i32') return new Int32Array(this.#live(), this.#begin, this.bytes / 4)
    throw new TypeError(`a ${this.dtype} tensor cannot be read as numbers`)
  }

  rows(from: number, to: number): Tensor {
    const [count = 0, ...rest] = this.shape
    if (!(0 <= from && from <= to && to <= count)) {
      throw new RangeError(`rows [${from}, ${to}) of a tensor [${this.shape}]`)
    }
    const begin = from * rest.reduce((product, size) => product * size, elementBytes[this.dtype])
    const memory = { buffer: this.#live(), begin: this.#begin + begin }
    return new HostTensor(this.pointer + begin, [to - from, ...rest], this.dtype, null, memory)
  }

  free(): void {
    if (!this.#memory || !this.#release) return
    this.#memory.transfer(0)
    this.#memory = null
    this.#release(this.pointer)
  }

  #live(): ArrayBuffer {
    if (!this.#memory) throw new Error(`a tensor [${this.shape}] is used after it was freed`)
    return this.#memory
  }
}

/** [n, k] as in a checkpoint, y = x W^T, in the layout that the kernels want. */
export class Weight {
  readonly handle: number
  readonly n: number
  readonly k: number
  readonly dtype: DType
  readonly bytes: number
  readonly #device: Device
  #isFreed = false

  constructor(device: Device, n: number, k: number, dtype: DType) {
    this.#device = device
    this.n = int32('n', n)
    this.k = int32('k', k)
    this.dtype = dtype
    const out = new BigUint64Array(1)
    device.library.call('ps_weight_create', device.context, n, k, dtypeCode[dtype], out)
    this.handle = Number(out[0])
    device.library.call('ps_weight_bytes', device.context, this.handle, out)
    this.bytes = Number(out[0])
  }

  /** Rows [row, row + rows) from `source`, row-major of `dtype`, which may be a view of shared memory; not kept. */
  load(row: number, rows: number, source: Uint8Array, dtype: DType): void {
    const bytes = int32('rows', rows) * this.k * elementBytes[dtype]
    if (source.byteLength !== bytes) {
      throw new RangeError(`${rows} rows of ${this.k} ${dtype} are ${bytes} bytes, not ${source.byteLength}`)
    }
    const { library, context } = this.#device
    library.call('ps_weight_load', context, this.handle, int32('row', row), rows, source, dtypeCode[dtype])
  }

  free(): void {
    if (this.#isFreed) return
    this.#isFreed = true
    if (this.#device.isOpen) this.#device.library.call('ps_weight_destroy', this.#device.context, this.handle)
  }
}

/** koffi and typed arrays cut integers silently; this does not. */
export function int32(name: string, value: number): number {
  if ((value | 0) !== value) throw new RangeError(`${name} is ${value}, not a 32-bit integer`)
  return value
}
