// A device: where tensors and weights live and ops run. Opened once per engine; everything allocated on it goes with it.

import { type Library, openLibrary } from './library.ts'
import { type Backend, findLibrary, libraryName } from './location.ts'
import { DeviceTensor, elementBytes, HostTensor, int32, type Tensor, Weight } from './tensor.ts'

export type DType = 'f32' | 'f16' | 'bf16' | 'i32'

export type DeviceOptions = {
  backend: Backend
  /** 0: all cores. */
  threads: number
  /** auto: the best that the machine has. */
  isa?: 'auto' | 'plain' | 'avx2' | 'avx512'
  /** Every index and every extent is checked by the ops; slow. */
  debug?: boolean
  /** The same bits whatever the batch, at some cost. The CPU always does so. */
  deterministic?: boolean
}

export type DeviceInfo = { isa: string; name: string; cores: number; numerics: string }

const infoCapacity = 1024

export class Device {
  readonly library: Library
  readonly context: number
  readonly info: DeviceInfo
  readonly #backend: Backend
  readonly #tensors = new Set<Tensor>()
  #isOpen = true

  static open({ backend, threads, isa = 'auto', debug = false, deterministic = false }: DeviceOptions): Device {
    const path = findLibrary(backend)
    const command = backend === 'cpu' ? 'npm run kernels' : 'npm run build:cuda'
    if (!path) throw new Error(`${libraryName(backend)} is not built yet; build it: ${command}`)
    const library = openLibrary(path)
    const context = new BigUint64Array(1)
    library.call('ps_ctx_create', 0, JSON.stringify({ threads, isa, debug, deterministic }), context)
    return new Device(backend, library, Number(context[0]))
  }

  private constructor(backend: Backend, library: Library, context: number) {
    this.#backend = backend
    this.library = library
    this.context = context
    const text = Buffer.alloc(infoCapacity)
    library.call('ps_device_info', context, text, text.length)
    this.info = JSON.parse(text.toString('utf8', 0, text.indexOf(0)))
  }

  /** Zeroed. */
  alloc(shape: number[], dtype: DType): Tensor {
    const elements = shape.reduce((product, size) => product * int32('shape', size), 1)
    const bytes = elements * elementBytes[dtype]
    const pointer = new BigUint64Array(1)
    // An empty tensor has an address too.
    this.library.call('ps_malloc', this.context, Math.max(bytes, 1), pointer)
    const address = Number(pointer[0])
    const tensor: Tensor =
      this.#backend === 'cpu'
        ? new HostTensor(address, shape, dtype, () => this.release(tensor))
        : new DeviceTensor(this, address, shape, dtype, null)
    this.#tensors.add(tensor)
    return tensor
  }

  /** For a tensor that is being freed. */
  release(tensor: Tensor): void {
    this.#tensors.delete(tensor)
    this.library.call('ps_free', this.context, tensor.pointer)
  }

  upload(array: Int32Array | Float32Array | Uint32Array, shape: number[] = [array.length]): Tensor {
    const tensor = this.alloc(shape, array instanceof Float32Array ? 'f32' : 'i32')
    tensor.write(array)
    return tensor
  }

  weight(n: number, k: number, dtype: DType): Weight {
    return new Weight(this, n, k, dtype)
  }

  /** Bytes, of the machine or of the container that this process runs in. */
  memory(): { free: number; total: number } {
    const free = new BigUint64Array(1)
    const total = new BigUint64Array(1)
    this.library.call('ps_mem_info', this.context, free, total)
    return { free: Number(free[0]), total: Number(total[0]) }
  }

  /** Ends the threads and frees all memory: tensors of this device are gone. */
  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    for (const tensor of this.#tensors) tensor.free()
    this.library.call('ps_ctx_destroy', this.context)
  }

  get isOpen(): boolean {
    return this.#isOpen
  }
}
