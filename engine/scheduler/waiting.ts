// The sequences that wait for a place, best first (precedence): a binary heap that remembers where each of them is, so
// that an abort need not search.
import { precedence, type Sequence } from './sequence.ts'

export class WaitingQueue {
  /** Of all sequences in the queue together. */
  tokens = 0
  readonly #heap: Sequence[] = []
  readonly #index = new Map<Sequence, number>()

  get size(): number {
    return this.#heap.length
  }

  peek(): Sequence | undefined {
    return this.#heap[0]
  }

  push(sequence: Sequence): void {
    this.tokens += sequence.length
    this.#place(sequence, this.#heap.length)
    this.#rise(this.#heap.length - 1)
  }

  remove(sequence: Sequence): void {
    const index = this.#index.get(sequence)
    if (index === undefined) throw new Error(`${sequence.request.id}/${sequence.choice} does not wait`)
    this.tokens -= sequence.length
    this.#index.delete(sequence)
    const last = this.#heap.pop()!
    if (last === sequence) return
    this.#place(last, index)
    this.#rise(index)
    this.#sink(this.#index.get(last)!)
  }

  #place(sequence: Sequence, index: number): void {
    this.#heap[index] = sequence
    this.#index.set(sequence, index)
  }

  #rise(index: number): void {
    const sequence = this.#heap[index]!
    let at = index
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (precedence(this.#heap[parent]!, sequence) <= 0) break
      this.#place(this.#heap[parent]!, at)
      at = parent
    }
    this.#place(sequence, at)
  }

  #sink(index: number): void {
    const sequence = this.#heap[index]!
    let at = index
    for (;;) {
      let child = 2 * at + 1
      if (child >= this.#heap.length) break
      if (child + 1 < this.#heap.length && precedence(this.#heap[child + 1]!, this.#heap[child]!) < 0) child++
      if (precedence(sequence, this.#heap[child]!) <= 0) break
      this.#place(this.#heap[child]!, at)
      at = child
    }
    this.#place(sequence, at)
  }
}
