// What sequences share: the prompt of a request's choices, and a document that many ask about at the same time.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Scheduler } from '../../../engine/scheduler/scheduler.ts'
import { range, request } from './requests.ts'
import { defaults, Simulation } from './simulation.ts'

test('the choices of a request compute its prompt once and hold its blocks and their own tails, no more', () => {
  for (const enablePrefixCaching of [true, false]) {
    for (const length of [30, 32, 2]) {
      const simulation = new Simulation({ enablePrefixCaching })
      const { blocks } = simulation.scheduler
      simulation.add(request('r', range(length), { n: 5, maxTokens: 9 }))
      assert.equal(simulation.step().length, 1)
      assert.equal(simulation.options.numBlocks - blocks.free, Math.ceil(length / 4))
      for (let generated = 2; generated < 9; generated++) {
        simulation.step()
        const shared = Math.floor(length / 4)
        const tail = Math.ceil((length + generated - 1) / 4) - shared
        assert.equal(simulation.options.numBlocks - blocks.free, shared + 5 * tail, `${length} + ${generated}`)
      }
      simulation.run()
      assert.equal(simulation.computed, length + 5 * 8)
      assert.equal(simulation.finished.length, 5)
    }
  }
})

test('choices for which there is no place when the prompt is computed follow later', () => {
  const simulation = new Simulation({ maxNumSeqs: 3 })
  simulation.add(request('r', range(30), { n: 8, maxTokens: 3 }))
  simulation.step()
  assert.equal(simulation.scheduler.running.length, 3)
  assert.equal(simulation.scheduler.waiting, 5)
  simulation.run()
  // 28 tokens in whole blocks are found by each of the five.
  assert.equal(simulation.computed, 30 + 5 * 2 + 8 * 2)
  assert.deepEqual(simulation.finished.length, 8)
})

test('choices for whose first token there is no block follow later, and nobody is preempted for them', () => {
  const simulation = new Simulation({ numBlocks: 10, maxModelLen: 36 })
  simulation.add(request('r', range(32), { n: 5, maxTokens: 3 }))
  simulation.step()
  assert.equal(simulation.scheduler.running.length, 2)
  simulation.step()
  assert.deepEqual([simulation.scheduler.running.length, simulation.scheduler.counts.preemptions], [2, 0])
  simulation.run()
  assert.equal(simulation.finished.length, 5)
})

test('a fork without a place waits, and its tokens are counted', () => {
  const scheduler = new Scheduler({ ...defaults, maxNumSeqs: 2 })
  scheduler.add(request('r', range(6), { n: 2, maxTokens: 9, useBeamSearch: true }))
  const [slice] = scheduler.schedule()
  scheduler.advance(slice!)
  const forks = [1, 2].map((choice) => scheduler.fork(slice!.sequence, choice))
  for (const each of [slice!.sequence, ...forks]) scheduler.extend(each, 7)
  assert.deepEqual([scheduler.running.length, scheduler.waiting, scheduler.waitingTokens], [2, 1, 7])
  scheduler.checkIntegrity()
  scheduler.finish(slice!.sequence)
  assert.deepEqual(
    scheduler.schedule().map(({ begin, count }) => [begin, count]),
    [
      [6, 1],
      [4, 3],
    ],
  )
  assert.deepEqual([scheduler.waiting, scheduler.waitingTokens], [0, 0])
})

test('a burst on one document computes it once, however it is cut', () => {
  const document = range(100)
  const burst = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => request(`${i}`, [...document, 500 + i, 600], { maxTokens: 2 }))
  for (const changes of [
    {},
    { longPrefillTokenThreshold: 8 },
    { longPrefillTokenThreshold: 3 },
    { maxNumBatchedTokens: 256 },
    { maxNumBatchedTokens: 9 },
  ]) {
    const simulation = new Simulation({ numBlocks: 100, ...changes })
    for (const each of burst) simulation.add(each)
    let most = 0
    while (simulation.scheduler.hasWork) {
      simulation.step()
      most = Math.max(most, simulation.options.numBlocks - simulation.scheduler.blocks.free)
    }
    assert.equal(simulation.computed, 100 + 8 * (2 + 1), JSON.stringify(changes))
    assert.ok(most <= 25 + 8, `${most} blocks held`)
    assert.equal(simulation.finished.length, 8)
  }
})

test('equal prompts in a burst: all but the first compute one token', () => {
  for (const length of [32, 33]) {
    const simulation = new Simulation()
    for (let i = 0; i < 4; i++) simulation.add(request(`${i}`, range(length), { maxTokens: 1 }))
    simulation.run()
    assert.equal(simulation.computed, length + 3)
  }
})

test('whoever of a burst is aborted or preempted, the others go on with the document', () => {
  for (let victim = 0; victim < 3; victim++) {
    for (let when = 1; when < 12; when++) {
      const simulation = new Simulation({ longPrefillTokenThreshold: 8, maxNumBatchedTokens: 20, maxModelLen: 256 })
      for (let i = 0; i < 3; i++) simulation.add(request(`${i}`, [...range(100), i, i], { maxTokens: 2 }))
      for (let i = 0; i < when; i++) simulation.step()
      if (when % 2 === 0) simulation.scheduler.abort(`${victim}`)
      // Needs every block but a few, and its class goes first.
      else simulation.add(request('first', range(200, 700), { maxTokens: 30 }, { class: -1 }))
      simulation.run()
      assert.ok(simulation.computed <= 100 + 3 * 3 + (when % 2) * (230 + 3 * 110))
    }
  }
})

test('when the choice that computes the prompt is aborted, the next one does it for the others', () => {
  const simulation = new Simulation({ maxNumBatchedTokens: 8 })
  simulation.add(request('r', range(30), { n: 3, maxTokens: 3 }))
  simulation.step()
  simulation.scheduler.abort('r', 0)
  assert.equal(simulation.scheduler.waiting, 2)
  simulation.run()
  assert.deepEqual(simulation.finished, ['r/1', 'r/2'])
})

test('without prefix caching requests share nothing', () => {
  const hits = [true, false].map((enablePrefixCaching) => {
    const simulation = new Simulation({ enablePrefixCaching })
    for (const id of ['a', 'b']) {
      simulation.add(request(id, range(30), { maxTokens: 1 }))
      simulation.run()
    }
    return simulation.scheduler.counts.prefixHits
  })
  assert.deepEqual(hits, [28, 0])
})
