// The blocks nobody holds, in the order in which they will be taken: a list doubly linked through two arrays, so that
// taking, giving back at either end and pulling out of the middle cost the same at any size. At first all are in it.

export class FreeList {
  length: number
  /** Neighbours of each block; the last index is the head, which closes the ring. `next` of a block not in the list is -1. */
  readonly #next: Int32Array
  readonly #previous: Int32Array
  readonly #head: number

  constructor(size: number) {
    this.#head = size
    this.length = size
    this.#next = Int32Array.from({ length: size + 1 }, (_, i) => (i + 1) % (size + 1))
    this.#previous = Int32Array.from({ length: size + 1 }, (_, i) => (i + size) % (size + 1))
  }

  has(block: number): boolean {
    return this.#next[block] !== -1
  }

  shift(): number | undefined {
    const first = this.#next[this.#head]!
    if (first === this.#head) return undefined
    this.remove(first)
    return first
  }

  /** To be taken first. */
  unshift(block: number): void {
    this.#insert(block, this.#head, this.#next[this.#head]!)
  }

  /** To be taken last. */
  push(block: number): void {
    this.#insert(block, this.#previous[this.#head]!, this.#head)
  }

  remove(block: number): void {
    if (!this.has(block)) throw new Error(`block ${block} is not free`)
    const next = this.#next[block]!
    const previous = this.#previous[block]!
    this.#next[previous] = next
    this.#previous[next] = previous
    this.#next[block] = -1
    this.length--
  }

  *[Symbol.iterator](): Generator<number> {
    for (let block = this.#next[this.#head]!; block !== this.#head; block = this.#next[block]!) yield block
  }

  #insert(block: number, previous: number, next: number): void {
    if (this.has(block)) throw new Error(`block ${block} is freed twice`)
    this.#next[previous] = block
    this.#next[block] = next
    this.#previous[next] = block
    this.#previous[block] = previous
    this.length++
  }
}
