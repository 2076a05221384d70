// Device memory with a shape, and matrices packed for the linear op. A tensor may be larger than what an op uses of it.
// On the CPU read() and write() go through a view of the memory itself, nothing is copied twice; free() detaches the
// view: arrays that read() gave are then empty, not windows on memory of others. On a GPU they copy.
import koffi from 'koffi'
import type { Device, DType } from './device.ts'

export const elementBytes: Record<DType, number> = { f32: 4, f16: 2, bf16: 2, i32: 4 }

/** The numbers of pagestream.h. */
export const dtypeCode: Record<DType, number> = { f32: 0, f16: 1, bf16: 2, i32: 3 }

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

/** In memory that this process reads and writes itself. */
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
    checkWrite(this, begin, array.byteLength)
    const from = new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
    new Uint8Array(this.#live(), this.#begin + begin, array.byteLength).set(from)
  }

  read(): Int32Array | Float32Array {
    return numbersOf(this, this.#live(), this.#begin)
  }

  rows(from: number, to: number): Tensor {
    const { begin, shape } = rowsOf(this, from, to)
    const memory = { buffer: this.#live(), begin: this.#begin + begin }
    return new HostTensor(this.pointer + begin, shape, this.dtype, null, memory)
  }

  free(): void {
    if (!this.#memory || !this.#release) return
    this.#memory.transfer(0)
    this.#memory = null
    this.#release(this.pointer)
  }

  #live(): ArrayBuffer {
    return this.#memory ?? usedAfterFree(this)
  }
}

/** In memory of a GPU: read() and write() copy, and wait for what was enqueued before. */
export class DeviceTensor implements Tensor {
  readonly pointer: number
  readonly shape: readonly number[]
  readonly dtype: DType
  readonly bytes: number
  readonly #device: Device
  /** Of the tensor whose memory it is, if not its own. */
  readonly #owner: DeviceTensor | null
  #isFreed = false

  constructor(device: Device, pointer: number, shape: readonly number[], dtype: DType, owner: DeviceTensor | null) {
    this.#device = device
    this.pointer = pointer
    this.shape = shape
    this.dtype = dtype
    this.bytes = shape.reduce((product, size) => product * size, elementBytes[dtype])
    this.#owner = owner
  }

  write(array: Int32Array | Float32Array | Uint32Array, offset = 0): void {
    const begin = offset * elementBytes[this.dtype]
    checkWrite(this, begin, array.byteLength)
    this.#copy('ps_memcpy_h2d', this.pointer + begin, array, array.byteLength)
  }

  read(): Int32Array | Float32Array {
    const copy = numbersOf(this, new ArrayBuffer(this.bytes), 0)
    this.#copy('ps_memcpy_d2h', copy, this.pointer, this.bytes)
    return copy
  }

  rows(from: number, to: number): Tensor {
    const { begin, shape } = rowsOf(this, from, to)
    return new DeviceTensor(this.#device, this.pointer + begin, shape, this.dtype, this.#owner ?? this)
  }

  free(): void {
    if (this.#isFreed || this.#owner) return
    this.#isFreed = true
    this.#device.release(this)
  }

  #copy(name: string, to: number | NodeJS.ArrayBufferView, from: number | NodeJS.ArrayBufferView, bytes: number): void {
    if ((this.#owner ?? this).#isFreed) usedAfterFree(this)
    if (bytes === 0) return
    const { library, context } = this.#device
    library.call(name, context, 0, to, from, bytes)
    library.call('ps_stream_sync', context, 0)
  }
}

function checkWrite({ shape, bytes }: Tensor, begin: number, count: number): void {
  if (begin + count <= bytes) return
  throw new RangeError(`write of ${count} bytes at ${begin} into a tensor [${shape}] of ${bytes} bytes`)
}

function rowsOf(tensor: Tensor, from: number, to: number): { begin: number; shape: number[] } {
  const [count = 0, ...rest] = tensor.shape
  if (!(0 <= from && from <= to && to <= count)) {
    throw new RangeError(`rows [${from}, ${to}) of a tensor [${tensor.shape}]`)
  }
  const begin = from * rest.reduce((product, size) => product * size, elementBytes[tensor.dtype])
  return { begin, shape: [to - from, ...rest] }
}

function numbersOf({ dtype, bytes }: Tensor, memory: ArrayBuffer, begin: number): Int32Array | Float32Array {
  if (dtype === 'f32') return new Float32Array(memory, begin, bytes / 4)
  if (dtype === 'i32') return new Int32Array(memory, begin, bytes / 4)
  throw new TypeError(`a ${dtype} tensor cannot be read as numbers`)
}

function usedAfterFree({ shape }: Tensor): never {
  throw new Error(`a tensor [${shape}] is used after it was freed`)
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
