// A device tensor that is filled anew every step and as large as any step needed so far.
import type { Device, DType } from '../native/device.ts'
import type { Tensor } from '../native/tensor.ts'

export class GrowingTensor {
  readonly #device: Device
  readonly #dtype: DType
  #tensor: Tensor | null = null
  #capacity = 0

  constructor(device: Device, dtype: DType) {
    this.#device = device
    this.#dtype = dtype
  }

  /** At least `size` elements, contents unknown. The tensor given before is gone if it was smaller. */
  fit(size: number): Tensor {
    if (this.#tensor && size <= this.#capacity) return this.#tensor
    this.free()
    this.#capacity = Math.max(64, size, 2 * this.#capacity)
    this.#tensor = this.#device.alloc([this.#capacity], this.#dtype)
    return this.#tensor
  }

  write(array: Int32Array | Float32Array): Tensor {
    const tensor = this.fit(array.length)
    if (array.length > 0) tensor.write(array)
    return tensor
  }

  /** Elements [from, to) of what was fitted last. */
  rows(from: number, to: number): Tensor {
    return this.fit(to).rows(from, to)
  }

  free(): void {
    this.#tensor?.free()
    this.#tensor = null
  }
}
