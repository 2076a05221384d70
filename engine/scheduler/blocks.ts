// The block pool: which block of KV belongs to whom, and which prefix of tokens it holds. Knows numbers only; the
// memory behind them is the model's. Called by scheduler.ts.
//
// A block is held by one or more sequences (counted) or is free. A full block whose K and V are computed is published:
// found by its hash, by any sequence with the same prefix, also after its last holder released it and until it is taken
// for something else. Free blocks are taken in this order: those without a hash, then least recently released first. A
// sequence releases its table from the end, and whoever holds a published block holds all before it, so within a chain
// the deeper blocks go first and a block that can be found never has a parent that cannot.
//
// Two sequences that compute the same block at the same time each fill their own; the second to publish moves to the
// first one's (the bits are equal: pagestream.h, numerics) and gives its own back.
import type { BlockHash } from '../../queue/prefix.ts'
import { FreeList } from './free-list.ts'
import type { Sequence } from './sequence.ts'

export class Blocks {
  readonly total: number
  /** Tokens per block. */
  readonly size: number
  readonly #free: FreeList
  readonly #holders: Int32Array
  readonly #hashOf: (BlockHash | undefined)[]
  readonly #byHash = new Map<BlockHash, number>()

  constructor(total: number, size: number) {
    this.total = total
    this.size = size
    this.#free = new FreeList(total)
    this.#holders = new Int32Array(total)
    this.#hashOf = new Array(total)
  }

  /** Blocks nobody holds, published ones included. */
  get free(): number {
    return this.#free.length
  }

  get published(): number {
    return this.#byHash.size
  }

  /** Blocks for so many tokens. */
  needed(tokens: number): number {
    return Math.ceil(tokens / this.size)
  }

  /** Published blocks that hold the beginning of a waiting sequence; its last token is always left to compute. */
  match(sequence: Sequence): number[] {
    const found: number[] = []
    const limit = Math.floor((sequence.length - 1) / this.size)
    while (found.length < limit) {
      const block = this.#byHash.get(sequence.hash(found.length, this.size))
      if (block === undefined) break
      found.push(block)
    }
    return found
  }

  /** Gives the sequence the matched blocks and fresh ones for the rest of its tokens, if `reserve` then stay free. */
  admit(sequence: Sequence, matched: number[], reserve: number): boolean {
    const revived = matched.reduce((count, block) => count + (this.#holders[block] === 0 ? 1 : 0), 0)
    const fresh = this.needed(sequence.length) - matched.length
    if (this.#free.length - revived - fresh < reserve) return false
    for (const block of matched) this.#hold(block)
    sequence.blocks.append(Int32Array.from(matched))
    sequence.published = matched.length
    sequence.computed = matched.length * this.size
    for (let i = 0; i < fresh; i++) sequence.blocks.push(this.#take()!)
    return true
  }

  /** Makes room for the last token of a running sequence; false if no block is free. */
  grow(sequence: Sequence): boolean {
    if (sequence.length <= sequence.blocks.length * this.size) return true
    const block = this.#take()
    if (block !== undefined) sequence.blocks.push(block)
    return block !== undefined
  }

  /** Lets the full blocks that are computed by now be found. */
  publish(sequence: Sequence): void {
    const full = Math.floor(sequence.computed / this.size)
    for (let i = sequence.published; i < full; i++) {
      const hash = sequence.hash(i, this.size)
      const own = sequence.blocks.at(i)
      const first = this.#byHash.get(hash)
      if (first === undefined) {
        this.#byHash.set(hash, own)
        this.#hashOf[own] = hash
      } else {
        this.#hold(first)
        this.#drop(own)
        sequence.blocks.set(i, first)
      }
    }
    sequence.published = full
  }

  release(sequence: Sequence): void {
    for (let i = sequence.blocks.length - 1; i >= 0; i--) this.#drop(sequence.blocks.at(i))
    sequence.blocks.clear()
    sequence.published = 0
    sequence.computed = 0
  }

  /** Throws if the books do not add up, given every sequence that holds blocks. */
  checkIntegrity(sequences: Iterable<Sequence>): void {
    const holders = new Int32Array(this.total)
    for (const sequence of sequences) for (const block of sequence.blocks.view) holders[block]!++
    let named = 0
    for (let block = 0; block < this.total; block++) {
      const counted = this.#holders[block]!
      if (counted !== holders[block])
        throw new Error(`block ${block}: ${counted} holders counted, ${holders[block]} found`)
      if (this.#free.has(block) !== (counted === 0)) throw new Error(`block ${block}: ${counted} holders, free or lost`)
      if (this.#hashOf[block] !== undefined) named++
    }
    for (const [hash, block] of this.#byHash) {
      if (this.#hashOf[block] !== hash)
        throw new Error(`block ${block}: found by ${hash}, carries ${this.#hashOf[block]}`)
    }
    if (named !== this.#byHash.size) throw new Error(`${named} blocks with a hash, ${this.#byHash.size} found by one`)
    let listed = 0
    for (const _ of this.#free) listed++
    if (listed !== this.#free.length) throw new Error(`${listed} blocks in the free list, ${this.#free.length} counted`)
  }

  #take(): number | undefined {
    const block = this.#free.shift()
    if (block === undefined) return undefined
    const hash = this.#hashOf[block]
    if (hash !== undefined) this.#byHash.delete(hash)
    this.#hashOf[block] = undefined
    this.#holders[block] = 1
    return block
  }

  #hold(block: number): void {
    if (this.#holders[block]! === 0) this.#free.remove(block)
    this.#holders[block]!++
  }

  #drop(block: number): void {
    if (--this.#holders[block]! > 0) return
    if (this.#hashOf[block] === undefined) this.#free.unshift(block)
    else this.#free.push(block)
  }
}
