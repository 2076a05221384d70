// The block pool against a naive one that keeps whole prefixes as text and its free blocks in an array.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Blocks } from '../../../engine/scheduler/blocks.ts'
import { Sequence } from '../../../engine/scheduler/sequence.ts'
import { dice, range, request } from './requests.ts'

class NaiveBlocks {
  holders: number[]
  /** Of each block, the whole prefix it ends, as text. */
  prefix: (string | null)[]
  free: number[]
  size: number

  constructor(total: number, size: number) {
    this.holders = new Array(total).fill(0)
    this.prefix = new Array(total).fill(null)
    this.free = range(total, 0)
    this.size = size
  }

  name(sequence: Sequence, block: number): string {
    return `${sequence.request.salt}:${sequence.tokens.view.subarray(0, (block + 1) * this.size).join()}`
  }

  match(sequence: Sequence): number[] {
    const found: number[] = []
    while ((found.length + 1) * this.size < sequence.length) {
      const block = this.prefix.indexOf(this.name(sequence, found.length))
      if (block < 0) break
      found.push(block)
    }
    return found
  }

  take(): number {
    const block = this.free.shift()!
    this.prefix[block] = null
    this.holders[block] = 1
    return block
  }

  hold(block: number) {
    if (this.holders[block]!++ === 0) this.free = this.free.filter((other) => other !== block)
  }

  drop(block: number) {
    if (--this.holders[block]! > 0) return
    if (this.prefix[block] === null) this.free.unshift(block)
    else this.free.push(block)
  }
}

/** A sequence of the test and the table that the naive pool gives it. */
type Pair = { sequence: Sequence; table: number[]; published: number }

test('100,000 random operations agree with a naive pool', () => {
  const roll = dice(7)
  const [total, size] = [40, 4]
  const blocks = new Blocks(total, size)
  const naive = new NaiveBlocks(total, size)
  let running: Pair[] = []
  const counts = { admitted: 0, refused: 0, hits: 0, grown: 0, full: 0, moved: 0, released: 0 }

  const admit = (id: number) => {
    // Few distinct beginnings and two salts, so that prefixes are often shared and often nearly.
    const prompt = [...range(roll(24), 1 + 100 * roll(2)), ...range(1 + roll(6), 1 + roll(3))]
    const sequence = new Sequence(request(`${id}`, prompt, {}, { salt: `${roll(2)}` }), 0, id)
    const expected = naive.match(sequence)
    const matched = blocks.match(sequence)
    assert.deepEqual(matched, expected)
    const reserve = roll(3)
    const revived = expected.filter((block) => naive.holders[block] === 0).length
    const fresh = Math.ceil(prompt.length / size) - expected.length
    const fits = naive.free.length - revived - fresh >= reserve
    assert.equal(blocks.admit(sequence, matched, reserve), fits)
    counts[fits ? 'admitted' : 'refused']++
    if (!fits) return
    for (const block of expected) naive.hold(block)
    const table = [...expected]
    for (let i = 0; i < fresh; i++) table.push(naive.take())
    assert.equal(sequence.computed, expected.length * size)
    counts.hits += expected.length
    running.push({ sequence, table, published: expected.length })
  }

  const compute = (pair: Pair) => {
    const { sequence, table } = pair
    sequence.computed += 1 + roll(sequence.uncomputed)
    blocks.publish(sequence)
    for (; (pair.published + 1) * size <= sequence.computed; pair.published++) {
      const name = naive.name(sequence, pair.published)
      const own = table[pair.published]!
      const first = naive.prefix.indexOf(name)
      if (first < 0) {
        naive.prefix[own] = name
        continue
      }
      naive.hold(first)
      naive.drop(own)
      table[pair.published] = first
      counts.moved++
    }
  }

  const decode = (pair: Pair) => {
    pair.sequence.tokens.push(1 + roll(2))
    const needs = pair.sequence.length > pair.table.length * size
    const expected = !needs || naive.free.length > 0
    assert.equal(blocks.grow(pair.sequence), expected)
    if (expected && needs) pair.table.push(naive.take())
    if (expected) counts.grown++
    else counts.full++
    if (!expected) release(pair)
  }

  const release = (pair: Pair) => {
    blocks.release(pair.sequence)
    for (const block of pair.table.reverse()) naive.drop(block)
    running = running.filter((other) => other !== pair)
    counts.released++
  }

  for (let i = 0; i < 100_000; i++) {
    const pair = running[roll(Math.max(1, running.length))]
    const what = roll(10)
    if (!pair || what < 2) admit(i)
    else if (what < 9) pair.sequence.uncomputed > 0 ? compute(pair) : decode(pair)
    else release(pair)
    assert.equal(blocks.free, naive.free.length)
    assert.equal(blocks.published, naive.prefix.filter((prefix) => prefix !== null).length)
    for (const { sequence, table } of running) assert.deepEqual([...sequence.blocks.view], table)
    if (i % 50 === 0) blocks.checkIntegrity(running.map(({ sequence }) => sequence))
    // A block that can be found never has a parent that cannot.
    for (const prefix of naive.prefix) {
      const parent = prefix?.split(',').slice(0, -size).join()
      if (parent) assert.ok(naive.prefix.includes(parent), `${prefix} has lost its parent`)
    }
  }
  for (const pair of [...running]) release(pair)
  blocks.checkIntegrity([])
  assert.equal(blocks.free, total)
  for (const [what, count] of Object.entries(counts)) assert.ok(count > 300, `${what} happened ${count} times only`)
})

function computed(blocks: Blocks, id: string, prompt: number[]): Sequence {
  const sequence = new Sequence(request(id, prompt), 0, 0)
  assert.ok(blocks.admit(sequence, blocks.match(sequence), 0))
  sequence.computed = sequence.length
  blocks.publish(sequence)
  return sequence
}

test('a released prefix is found until its blocks are needed, deeper blocks going first', () => {
  const blocks = new Blocks(4, 4)
  blocks.release(computed(blocks, 'a', range(12)))
  const again = new Sequence(request('again', range(13)), 0, 0)
  assert.equal(blocks.match(again).length, 3)
  computed(blocks, 'b', range(8, 100))
  assert.equal(blocks.match(again).length, 2)
})

test('the least recently used prefix is taken first', () => {
  const blocks = new Blocks(4, 4)
  const a = computed(blocks, 'a', range(8))
  const b = computed(blocks, 'b', range(8, 50))
  blocks.release(b)
  blocks.release(a)
  computed(blocks, 'c', range(8, 100))
  assert.equal(blocks.match(new Sequence(request('a', range(9)), 0, 0)).length, 2)
  assert.equal(blocks.match(new Sequence(request('b', range(9, 50)), 0, 0)).length, 0)
})

test('the last token of a prompt is always left to compute', () => {
  const blocks = new Blocks(4, 4)
  blocks.release(computed(blocks, 'a', range(8)))
  assert.equal(blocks.match(new Sequence(request('same', range(8)), 0, 0)).length, 1)
})

test('a lost reference, a double release and a wrong hash are found by the check', () => {
  const blocks = new Blocks(4, 4)
  const a = computed(blocks, 'a', range(8))
  blocks.checkIntegrity([a])
  assert.throws(() => blocks.checkIntegrity([]), /1 holders counted, 0 found/)
  const copy = Int32Array.from(a.blocks.view)
  blocks.release(a)
  a.blocks.append(copy)
  assert.throws(() => blocks.release(a), /freed twice/)
})
