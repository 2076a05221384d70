// The block pool: which block of KV belongs to whom, and which prefix of tokens it holds. Knows numbers only; the
// memory behind them is the model's. Called by scheduler.ts.
//
// A block is held by one or more sequences (counted) or is free. A block all of whose tokens are known is named by the
// hash of its prefix (queue/prefix.ts) when a sequence takes it, and filled when its K and V are in the cache or will be
// by the end of the step in hand: K and V of all rows of a step are written before any of its rows attends. So whoever
// has the same prefix finds the block while its prefill is still in flight, holds it too, and goes on behind what is
// filled; nobody waits for anybody, and if one is aborted another fills what is left.
//
// A filled block is found until it is taken for something else, also after its last holder released it; one that was
// not filled loses its name then. Free blocks are taken in this order: those without a name, then least recently
// released first. A sequence releases its table from the end, and whoever holds a named block holds all before it, so
// within a chain the deeper blocks go first and a block that can be found never has a parent that cannot.
//
// A fork holds all blocks of its parent. Nobody writes into a block that others read: the first to write copies it
// (`copies`, done before the step computes) and the last one left writes in place.
import type { BlockHash } from '../../queue/prefix.ts'
import { FreeList } from './free-list.ts'
import type { Sequence } from './sequence.ts'

/** Of `#filledIn`: the K and V of the block are not in the cache. */
const NEVER = 0

export class Blocks {
  readonly total: number
  /** Tokens per block. */
  readonly size: number
  /** Blocks to copy before the step computes, in this order: from, to, from, to, ... */
  readonly copies: number[] = []
  readonly #free: FreeList
  readonly #holders: Int32Array
  readonly #nameOf: (BlockHash | undefined)[]
  readonly #byName = new Map<BlockHash, number>()
  /** The step that fills or filled a named block. */
  readonly #filledIn: Float64Array
  #step = 1

  constructor(total: number, size: number) {
    this.total = total
    this.size = size
    this.#free = new FreeList(total)
    this.#holders = new Int32Array(total)
    this.#nameOf = new Array(total)
    this.#filledIn = new Float64Array(total)
  }

  /** Blocks nobody holds, named ones included. */
  get free(): number {
    return this.#free.length
  }

  /** Blocks that can be found by their name. */
  get named(): number {
    return this.#byName.size
  }

  /** Blocks for so many tokens. */
  needed(tokens: number): number {
    return Math.ceil(tokens / this.size)
  }

  /** What was to be filled and copied by the last step has been. */
  beginStep(): void {
    this.#step++
    this.copies.length = 0
  }

  /** Named blocks that hold the beginning of a waiting sequence, filled or in flight, as far as it may reuse them. */
  match(sequence: Sequence): number[] {
    const found: number[] = []
    const full = Math.floor(sequence.reusable / this.size)
    while (found.length < full) {
      const block = this.#byName.get(sequence.hash(found.length, this.size))
      if (block === undefined) break
      found.push(block)
    }
    return found
  }

  /** Gives the sequence the matched blocks and fresh ones for the rest of its tokens, if `reserve` then stay free. */
  admit(sequence: Sequence, matched: number[], reserve: number): boolean {
    if (!this.fits(sequence, matched, reserve)) return false
    for (const block of matched) this.#hold(block)
    sequence.blocks.append(Int32Array.from(matched))
    const full = Math.floor(sequence.length / this.size)
    for (let i = matched.length; i < this.needed(sequence.length); i++) {
      const block = this.#take()!
      sequence.blocks.push(block)
      // Another has the name already if this one was not to reuse it.
      if (i < full && !this.#byName.has(sequence.hash(i, this.size))) this.#name(block, sequence.hash(i, this.size))
    }
    return true
  }

  fits(sequence: Sequence, matched: number[], reserve: number): boolean {
    const revived = matched.reduce((count, block) => count + (this.#holders[block] === 0 ? 1 : 0), 0)
    const fresh = this.needed(sequence.length) - matched.length
    // Found to the last token, which is computed again all the same: not into a block that others read.
    const isCopied = matched.length * this.size === sequence.length && this.#holders[matched.at(-1)!]! > 0
    return this.#free.length - revived - fresh - (isCopied ? 1 : 0) >= reserve
  }

  /** Passes over filled blocks; the last token is always left to compute, for its logits. False if that one has to wait
   * for the next step, because the block to copy for it is filled by this one. */
  skip(sequence: Sequence): boolean {
    const full = Math.floor(sequence.reusable / this.size)
    for (let i = Math.floor(sequence.computed / this.size); i < full; i++) {
      const own = sequence.blocks.at(i)
      const named = this.#byName.get(sequence.hash(i, this.size))
      if (named === undefined || this.#filledIn[named] === NEVER) break
      if (named !== own) this.#replace(sequence, i, named)
      sequence.computed = Math.min((i + 1) * this.size, sequence.length - 1)
      if ((i + 1) * this.size === sequence.length) return this.#filledIn[named]! < this.#step
    }
    return true
  }

  /** Whether others hold the block that comes next. */
  isShared(sequence: Sequence): boolean {
    return this.#holders[sequence.blocks.at(Math.floor(sequence.computed / this.size))]! > 1
  }

  /** Makes room for the last token, which is the only one not computed; false if that needs a block and none is free. */
  grow(sequence: Sequence): boolean {
    const index = Math.floor(sequence.computed / this.size)
    const isNew = index === sequence.blocks.length
    if (!isNew && this.#isWritable(sequence.blocks.at(index))) return true
    const block = this.#take()
    if (block === undefined) return false
    if (isNew) sequence.blocks.push(block)
    else {
      const shared = sequence.blocks.at(index)
      this.copies.push(shared, block)
      this.#drop(shared)
      sequence.blocks.set(index, block)
    }
    return true
  }

  /** Makes room for `more` tokens behind the last, which has its own; false, and nothing taken, if blocks are short. */
  extend(sequence: Sequence, more: number): boolean {
    const missing = this.needed(sequence.length + more) - sequence.blocks.length
    if (missing > this.#free.length) return false
    for (let i = 0; i < missing; i++) sequence.blocks.push(this.#take()!)
    return true
  }

  /** Gives back what it was extended by for tokens that did not come to be. */
  trim(sequence: Sequence): void {
    while (sequence.blocks.length > this.needed(sequence.length)) this.#drop(sequence.blocks.pop())
  }

  /** The step in hand computes the next `count` tokens of the sequence: the named blocks that completes are filled. */
  fill(sequence: Sequence, count: number): void {
    const end = Math.floor((sequence.computed + count) / this.size)
    for (let i = Math.floor(sequence.computed / this.size); i < end; i++) {
      const block = sequence.blocks.at(i)
      if (this.#nameOf[block] !== undefined && this.#filledIn[block] === NEVER) this.#filledIn[block] = this.#step
    }
  }

  /** Names the full blocks that are computed by now. Where another has the name, and the same bits (pagestream.h,
   * numerics), the sequence moves to that one. */
  publish(sequence: Sequence): void {
    const full = Math.floor(sequence.computed / this.size)
    for (let i = sequence.published; i < full; i++) {
      const own = sequence.blocks.at(i)
      const name = sequence.hash(i, this.size)
      const first = this.#byName.get(name)
      if (first === own) continue
      if (first !== undefined && this.#filledIn[first] !== NEVER) {
        this.#replace(sequence, i, first)
        continue
      }
      // Those for whom it was in flight find this one instead.
      if (first !== undefined) this.#nameOf[first] = undefined
      this.#name(own, name)
      this.#filledIn[own] = this.#step
    }
    sequence.published = full
  }

  /** The child goes on where the parent is, in the same blocks. */
  fork(parent: Sequence, child: Sequence): void {
    child.inheritHashes(parent)
    for (const block of parent.blocks.view) this.#hold(block)
    child.blocks.append(parent.blocks.view)
    child.computed = parent.computed
    child.published = parent.published
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
    const first = new Map<number, { sequence: Sequence; index: number }>()
    for (const sequence of sequences) {
      for (const [index, block] of sequence.blocks.view.entries()) {
        holders[block]!++
        this.#checkHeld(block, sequence, index)
        const other = first.get(block)
        if (!other) first.set(block, { sequence, index })
        else if (other.index !== index || !this.#agree(sequence, other.sequence, index)) {
          throw new Error(`block ${block}: shared by sequences whose tokens in it differ`)
        }
      }
    }
    let named = 0
    for (let block = 0; block < this.total; block++) {
      const counted = this.#holders[block]!
      if (counted !== holders[block])
        throw new Error(`block ${block}: ${counted} holders counted, ${holders[block]} found`)
      if (this.#free.has(block) !== (counted === 0)) throw new Error(`block ${block}: ${counted} holders, free or lost`)
      if (this.#nameOf[block] === undefined) continue
      named++
      if (counted === 0 && this.#filledIn[block] === NEVER)
        throw new Error(`block ${block}: can be found, but nobody fills it`)
    }
    for (const [name, block] of this.#byName) {
      if (this.#nameOf[block] !== name)
        throw new Error(`block ${block}: found by ${name}, carries ${this.#nameOf[block]}`)
    }
    if (named !== this.#byName.size) throw new Error(`${named} blocks with a name, ${this.#byName.size} found by one`)
    let listed = 0
    for (const _ of this.#free) listed++
    if (listed !== this.#free.length) throw new Error(`${listed} blocks in the free list, ${this.#free.length} counted`)
  }

  #checkHeld(block: number, sequence: Sequence, index: number): void {
    const name = this.#nameOf[block]
    if (name === undefined) return
    if ((index + 1) * this.size > sequence.length || sequence.hash(index, this.size) !== name)
      throw new Error(`block ${block}: named for tokens that its holder does not have`)
  }

  /** As far as both have computed. */
  #agree(a: Sequence, b: Sequence, index: number): boolean {
    const end = Math.min((index + 1) * this.size, a.computed, b.computed)
    for (let i = index * this.size; i < end; i++) if (a.tokens.at(i) !== b.tokens.at(i)) return false
    return true
  }

  /** By a holder: nobody else reads the block, or all will write the same into it. */
  #isWritable(block: number): boolean {
    if (this.#holders[block] === 1) return true
    return this.#nameOf[block] !== undefined && this.#filledIn[block] === NEVER
  }

  #name(block: number, name: BlockHash): void {
    this.#byName.set(name, block)
    this.#nameOf[block] = name
  }

  #unname(block: number): void {
    const name = this.#nameOf[block]
    if (name !== undefined) this.#byName.delete(name)
    this.#nameOf[block] = undefined
    this.#filledIn[block] = NEVER
  }

  #replace(sequence: Sequence, index: number, block: number): void {
    this.#hold(block)
    this.#drop(sequence.blocks.at(index))
    sequence.blocks.set(index, block)
  }

  #take(): number | undefined {
    const block = this.#free.shift()
    if (block === undefined) return undefined
    this.#unname(block)
    this.#holders[block] = 1
    return block
  }

  #hold(block: number): void {
    if (this.#holders[block]! === 0) this.#free.remove(block)
    this.#holders[block]!++
  }

  #drop(block: number): void {
    if (--this.#holders[block]! > 0) return
    if (this.#filledIn[block] === NEVER) this.#unname(block)
    if (this.#nameOf[block] === undefined) this.#free.unshift(block)
    else this.#free.push(block)
  }
}
