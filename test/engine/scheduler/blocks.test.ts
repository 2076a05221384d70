// The block pool against a naive one, by random operations, with the contents of the cache remembered beside it. The
// suite does 100,000; all of 1,000,000 by: node test/engine/scheduler/blocks.test.ts 1000000
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Blocks } from '../../../engine/scheduler/blocks.ts'
import { Sequence } from '../../../engine/scheduler/sequence.ts'
import { Memory } from './memory.ts'
import { NaiveBlocks } from './naive-blocks.ts'
import { dice, range, request } from './requests.ts'

const operations = Number(process.argv[2] ?? 100_000)

test(`${operations} random operations agree with a naive pool, and nobody attends to what is not its own`, () => {
  const roll = dice(7)
  const [total, size] = [80, 4]
  const blocks = new Blocks(total, size)
  const naive = new NaiveBlocks(total, size)
  const memory = new Memory(total, size)
  let running: Sequence[] = []
  let beginning = 0
  const counts = { admitted: 0, refused: 0, found: 0, inFlight: 0, waited: 0, grown: 0, full: 0, copied: 0, forked: 0 }
  const ends = { aborted: 0, preempted: 0, moved: 0 }

  const admit = (id: number) => {
    // The same beginning a few times in a row and two salts, so that prefixes are often shared and often nearly.
    if (roll(5) === 0) beginning = roll(1000)
    let prompt = [...range(roll(24), beginning), ...range(1 + roll(6), 1 + roll(3))]
    // Or what another one says or is about to say; whole blocks, so that all of it can be found.
    const other = running[roll(40)]
    if (other && roll(2) === 0) prompt = [...other.tokens.view, ...range(4, 0).map(() => 1 + roll(2))]
    if (other) prompt = prompt.slice(0, Math.max(1, prompt.length - (prompt.length % size)))
    const sequence = new Sequence(request(`${id}`, prompt, {}, { salt: `${roll(2)}` }), 0, id)
    const matched = blocks.match(sequence)
    assert.deepEqual(matched, naive.match(sequence))
    const reserve = roll(3)
    const fits = naive.admit(sequence, reserve)
    assert.equal(blocks.admit(sequence, matched, reserve), fits)
    counts[fits ? 'admitted' : 'refused']++
    if (fits) running.push(sequence)
  }

  const release = (sequence: Sequence) => {
    blocks.release(sequence)
    naive.release(sequence)
    running = running.filter((other) => other !== sequence)
  }

  const fork = (parent: Sequence) => {
    if (parent.computed === 0 || parent.uncomputed > 1) return
    const child = parent.fork(0)
    blocks.fork(parent, child)
    naive.fork(parent, child)
    running.push(child)
    counts.forked++
  }

  /** A step as the scheduler makes one: those with one token left first, each as far as chance has it. */
  const step = () => {
    blocks.beginStep()
    naive.beginStep()
    const slices: { sequence: Sequence; begin: number; count: number }[] = []
    const stuck: Sequence[] = []
    const chosen = running.filter(({ uncomputed }) => uncomputed > 0 && roll(3) > 0)
    for (const sequence of chosen.sort((a, b) => Number(a.uncomputed > 1) - Number(b.uncomputed > 1))) {
      const before = sequence.computed
      if (sequence.uncomputed > 1) {
        const isReady = naive.skip(sequence)
        assert.equal(blocks.skip(sequence), isReady)
        if (sequence.computed > before) counts.found++
        if (sequence.computed > before && before > 0) counts.inFlight++
        if (!isReady) {
          counts.waited++
          continue
        }
      }
      if (sequence.uncomputed === 1) {
        const hasRoom = naive.grow(sequence)
        assert.equal(blocks.grow(sequence), hasRoom)
        counts[hasRoom ? 'grown' : 'full']++
        if (!hasRoom) {
          stuck.push(sequence)
          continue
        }
      }
      let count = roll(2) === 0 ? sequence.uncomputed : 1 + roll(sequence.uncomputed)
      const over = (sequence.computed + count) % size
      if (count < sequence.uncomputed && over < count) count -= over
      else if (count < sequence.uncomputed && blocks.isShared(sequence)) continue
      slices.push({ sequence, begin: sequence.computed, count })
      blocks.fill(sequence, count)
      naive.fill(sequence, count)
    }
    assert.deepEqual(blocks.copies, naive.copies)
    counts.copied += blocks.copies.length / 2
    memory.step(slices, blocks.copies)
    for (const { sequence, count } of slices) {
      const before = Int32Array.from(sequence.blocks.view)
      sequence.computed += count
      blocks.publish(sequence)
      naive.publish(sequence, count)
      if (before.some((block, i) => sequence.blocks.at(i) !== block)) ends.moved++
    }
    for (const sequence of stuck) release(sequence)
  }

  for (let i = 0; i < operations; i++) {
    const sequence = running[roll(Math.max(1, running.length))]
    const what = roll(20)
    if (!sequence || what < 5) admit(i)
    else if (what < 10) step()
    else if (what < 15) {
      for (const each of running) if (each.uncomputed === 0) each.tokens.push(1 + roll(2))
    } else if (what < 16) fork(sequence)
    else if (what < 18 || sequence.length > 40) {
      ends.aborted++
      release(sequence)
    } else if (blocks.free < 8) {
      // The last one gives up what it has, to be admitted again.
      const victim = running.at(-1)!
      ends.preempted++
      release(victim)
      const fits = naive.admit(victim, 0)
      assert.equal(blocks.admit(victim, blocks.match(victim), 0), fits)
      if (fits) running.push(victim)
    }
    assert.equal(blocks.free, naive.free.length)
    for (const each of running) {
      const { table, computed } = naive.entries.get(each)!
      assert.equal(each.computed, computed)
      assert.ok(table.every((block, index) => each.blocks.at(index) === block) && table.length === each.blocks.length)
    }
    if (i % 50 > 0) continue
    blocks.checkIntegrity(running)
    assert.equal(blocks.named, naive.names.length)
    // A block that can be found never has a parent that cannot.
    const names = new Set(naive.names)
    for (const name of names) {
      const parent = name.split(',').slice(0, -size).join()
      if (parent) assert.ok(names.has(parent), `${name} has lost its parent`)
    }
  }
  for (const sequence of [...running]) release(sequence)
  blocks.checkIntegrity([])
  assert.equal(blocks.free, total)
  const least = operations / 5000
  for (const [what, count] of Object.entries({ ...counts, ...ends })) {
    assert.ok(count >= least, `${what} happened ${count} times only`)
  }
})

function computed(blocks: Blocks, id: string, prompt: number[]): Sequence {
  const sequence = new Sequence(request(id, prompt), 0, 0)
  assert.ok(blocks.admit(sequence, blocks.match(sequence), 0))
  blocks.fill(sequence, sequence.length)
  sequence.computed = sequence.length
  blocks.publish(sequence)
  blocks.beginStep()
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

test('the last token of a prompt is always left to compute, in a copy if others read its block', () => {
  const blocks = new Blocks(4, 4)
  const again = () => {
    const sequence = new Sequence(request('again', range(8)), 0, 0)
    assert.ok(blocks.admit(sequence, blocks.match(sequence), 0))
    assert.ok(blocks.skip(sequence) && blocks.grow(sequence))
    assert.equal(sequence.computed, 7)
    return sequence
  }
  const first = computed(blocks, 'first', range(8))
  const [, tail] = first.blocks.view
  const second = again()
  assert.deepEqual(blocks.copies, [tail, second.blocks.at(1)])
  blocks.release(second)
  blocks.release(first)
  blocks.beginStep()
  assert.equal(again().blocks.at(1), tail)
  assert.deepEqual(blocks.copies, [])
})

test('a block in flight is found at once, and lost only with the last who could fill it', () => {
  const blocks = new Blocks(6, 4)
  const admit = (id: string) => {
    const sequence = new Sequence(request(id, range(14)), 0, 0)
    const matched = blocks.match(sequence)
    assert.ok(blocks.admit(sequence, matched, 0))
    return { sequence, found: matched.length }
  }
  const first = admit('first')
  const second = admit('second')
  assert.deepEqual([first.found, second.found], [0, 3])
  blocks.fill(first.sequence, 8)
  blocks.skip(second.sequence)
  assert.equal(second.sequence.computed, 8)
  blocks.release(first.sequence)
  assert.equal(blocks.named, 3)
  blocks.release(second.sequence)
  assert.equal(blocks.named, 2)
  blocks.checkIntegrity([])
})

test('a fork shares every block, and the first to write copies the last one', () => {
  const blocks = new Blocks(8, 4)
  const parent = computed(blocks, 'parent', range(6))
  const children = range(3).map((choice) => {
    const child = new Sequence(parent.request, choice, 0)
    blocks.fork(parent, child)
    return child
  })
  assert.equal(blocks.free, 6)
  const family = [parent, ...children]
  for (const each of family) {
    each.tokens.push(7 + each.choice)
    assert.ok(blocks.grow(each))
  }
  // ceil(6 / 4) blocks and three more tails; the last to write needs no copy.
  assert.equal(blocks.free, 3)
  assert.equal(blocks.copies.length / 2, 3)
  assert.equal(new Set(family.map((each) => each.blocks.at(0))).size, 1)
  assert.equal(new Set(family.map((each) => each.blocks.at(1))).size, 4)
  blocks.checkIntegrity(family)
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
