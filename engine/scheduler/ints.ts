// A growing list of int32 whose contents can be copied to a device as they lie. Holds the tokens of a sequence and its
// block table.

export class IntList {
  length = 0
  #array: Int32Array

  constructor(capacity = 16) {
    this.#array = new Int32Array(Math.max(1, capacity))
  }

  /** What is in the list, without a copy: good until the next push. */
  get view(): Int32Array {
    return this.#array.subarray(0, this.length)
  }

  at(index: number): number {
    if (index >= this.length) throw new RangeError(`index ${index} of a list of ${this.length}`)
    return this.#array[index]!
  }

  set(index: number, value: number): void {
    if (index >= this.length) throw new RangeError(`index ${index} of a list of ${this.length}`)
    this.#array[index] = value
  }

  push(value: number): void {
    this.#fit(this.length + 1)
    this.#array[this.length++] = value
  }

  pop(): number {
    const last = this.at(this.length - 1)
    this.length--
    return last
  }

  append(values: Uint32Array | Int32Array): void {
    this.#fit(this.length + values.length)
    this.#array.set(values, this.length)
    this.length += values.length
  }

  clear(): void {
    this.length = 0
  }

  #fit(capacity: number): void {
    if (capacity <= this.#array.length) return
    const larger = new Int32Array(Math.max(capacity, 2 * this.#array.length))
    larger.set(this.view)
    this.#array = larger
  }
}
