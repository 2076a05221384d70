// The block pool written as plainly as it can be: names are whole prefixes as text, the free blocks an array, and
// everything is found by looking through everything. What blocks.ts must agree with.
import type { Sequence } from '../../../engine/scheduler/sequence.ts'

type Entry = { table: number[]; published: number; computed: number }

export class NaiveBlocks {
  readonly entries = new Map<Sequence, Entry>()
  copies: number[] = []
  free: number[]
  readonly #size: number
  readonly #name: (string | null)[]
  /** The step that fills or filled a named block; 0: none. */
  readonly #filledIn: number[]
  #step = 1

  constructor(total: number, size: number) {
    this.#size = size
    this.free = Array.from({ length: total }, (_, i) => i)
    this.#name = new Array(total).fill(null)
    this.#filledIn = new Array(total).fill(0)
  }

  get names(): string[] {
    return this.#name.filter((name) => name !== null)
  }

  holders(block: number): number {
    return [...this.entries.values()].filter(({ table }) => table.includes(block)).length
  }

  name(sequence: Sequence, block: number): string {
    return `${sequence.request.salt}:${sequence.tokens.view.subarray(0, (block + 1) * this.#size).join()}`
  }

  beginStep(): void {
    this.#step++
    this.copies = []
  }

  match(sequence: Sequence): number[] {
    const found: number[] = []
    while ((found.length + 1) * this.#size <= sequence.length) {
      const block = this.#name.indexOf(this.name(sequence, found.length))
      if (block < 0) break
      found.push(block)
    }
    return found
  }

  admit(sequence: Sequence, reserve: number): boolean {
    const table = this.match(sequence)
    const fresh = Math.ceil(sequence.length / this.#size) - table.length
    const isWhole = table.length * this.#size === sequence.length
    const copied = isWhole && this.holders(table.at(-1)!) > 0 ? 1 : 0
    const free = this.free.filter((block) => !table.includes(block)).length
    if (free - fresh - copied < reserve) return false
    this.free = this.free.filter((block) => !table.includes(block))
    for (let i = 0; i < fresh; i++) {
      const block = this.#take()
      if ((table.length + 1) * this.#size <= sequence.length) this.#name[block] = this.name(sequence, table.length)
      table.push(block)
    }
    this.entries.set(sequence, { table, published: 0, computed: 0 })
    return true
  }

  skip(sequence: Sequence): boolean {
    const entry = this.entries.get(sequence)!
    let index = Math.floor(entry.computed / this.#size)
    for (; (index + 1) * this.#size <= sequence.length; index++) {
      const named = this.#name.indexOf(this.name(sequence, index))
      if (named < 0 || this.#filledIn[named] === 0) break
      this.#replace(entry, index, named)
      entry.computed = Math.min((index + 1) * this.#size, sequence.length - 1)
      if ((index + 1) * this.#size === sequence.length) return this.#filledIn[named] !== this.#step
    }
    return true
  }

  grow(sequence: Sequence): boolean {
    const { table } = this.entries.get(sequence)!
    const index = Math.floor((sequence.length - 1) / this.#size)
    const own = table[index]
    const isShared = own !== undefined && this.holders(own) > 1
    const isInFlight = own !== undefined && this.#name[own] !== null && this.#filledIn[own] === 0
    if (own !== undefined && (!isShared || isInFlight)) return true
    if (this.free.length === 0) return false
    table[index] = this.#take()
    if (own !== undefined) this.copies.push(own, table[index])
    return true
  }

  fill(sequence: Sequence, count: number): void {
    const { table, computed } = this.entries.get(sequence)!
    for (const [index, block] of table.entries()) {
      const isComplete = (index + 1) * this.#size <= computed + count
      if (isComplete && this.#name[block] !== null) this.#filledIn[block] ||= this.#step
    }
  }

  publish(sequence: Sequence, count: number): void {
    const entry = this.entries.get(sequence)!
    entry.computed += count
    for (; (entry.published + 1) * this.#size <= entry.computed; entry.published++) {
      const own = entry.table[entry.published]!
      const name = this.name(sequence, entry.published)
      const first = this.#name.indexOf(name)
      if (first === own) continue
      if (first >= 0 && this.#filledIn[first] !== 0) {
        this.#replace(entry, entry.published, first)
        continue
      }
      if (first >= 0) this.#name[first] = null
      this.#name[own] = name
      this.#filledIn[own] = this.#step
    }
  }

  fork(parent: Sequence, child: Sequence): void {
    const { table, ...rest } = this.entries.get(parent)!
    this.entries.set(child, { table: [...table], ...rest })
  }

  release(sequence: Sequence): void {
    const { table } = this.entries.get(sequence)!
    this.entries.delete(sequence)
    for (const block of table.reverse()) this.#freeUnheld(block)
  }

  #replace(entry: Entry, index: number, block: number): void {
    const own = entry.table[index]!
    if (own === block) return
    this.free = this.free.filter((other) => other !== block)
    entry.table[index] = block
    this.#freeUnheld(own)
  }

  #take(): number {
    const block = this.free.shift()!
    this.#name[block] = null
    this.#filledIn[block] = 0
    return block
  }

  #freeUnheld(block: number): void {
    if (this.holders(block) > 0) return
    if (this.#filledIn[block] === 0) this.#name[block] = null
    if (this.#name[block] === null) this.free.unshift(block)
    else this.free.push(block)
  }
}
