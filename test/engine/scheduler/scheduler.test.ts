import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Scheduler } from '../../../engine/scheduler/scheduler.ts'
import { dice, range, request } from './requests.ts'
import { defaults, Simulation } from './simulation.ts'

test('a prompt is cut in chunks that fill what the decodes leave of the budget', () => {
  const simulation = new Simulation({ maxNumBatchedTokens: 10 })
  simulation.add(request('a', range(3)))
  simulation.add(request('b', range(2, 50)))
  simulation.step()
  simulation.add(request('long', range(20, 100)))
  for (let i = 0; i < 3; i++) simulation.step()
  assert.deepEqual(
    simulation.steps.map((step) => step.map(({ name, count }) => `${name}:${count}`).join(' ')),
    ['a/0:3 b/0:2', 'a/0:1 b/0:1 long/0:8', 'a/0:1 b/0:1 long/0:8', 'a/0:1 b/0:1 long/0:4'],
  )
  simulation.run()
})

test('the long-prefill threshold leaves budget to the prompts behind', () => {
  const simulation = new Simulation({ longPrefillTokenThreshold: 10, maxNumBatchedTokens: 16 })
  simulation.add(request('long', range(20), { maxTokens: 2 }))
  simulation.add(request('short', range(5, 50), { maxTokens: 2 }))
  simulation.run()
  // Cut between blocks of four, so that what is computed can be shared.
  assert.deepEqual(
    simulation.steps.map((step) => step.map(({ name, count }) => `${name}:${count}`).join(' ')),
    ['long/0:8 short/0:5', 'short/0:1 long/0:8', 'long/0:4', 'long/0:1'],
  )
  const least = new Simulation({ longPrefillTokenThreshold: 1 })
  least.add(request('long', range(20)))
  assert.equal(least.step()[0]!.count, 4, 'a block')
})

test('without chunked prefill a prompt waits for a step that takes it whole', () => {
  const simulation = new Simulation({ enableChunkedPrefill: false, maxModelLen: 32, longPrefillTokenThreshold: 4 })
  simulation.add(request('a', range(20)))
  simulation.add(request('b', range(20, 50)))
  simulation.run()
  assert.deepEqual(simulation.steps[0], [{ name: 'a/0', begin: 0, count: 20 }])
  assert.deepEqual(simulation.steps[1]![1], { name: 'b/0', begin: 0, count: 20 })
})

test('the place of a finished sequence is taken in the very next step', () => {
  const simulation = new Simulation({ maxNumSeqs: 2 })
  for (const [id, maxTokens] of [
    ['a', 3],
    ['b', 6],
    ['c', 2],
    ['d', 2],
  ] as const) {
    simulation.add(request(id, [1], { maxTokens }))
  }
  simulation.run()
  assert.deepEqual(
    simulation.steps.map((step) => step.map(({ name }) => name[0]).join('')),
    ['ab', 'ab', 'ab', 'bc', 'bc', 'bd', 'd'],
  )
})

test('8 places, 7 requests of 100 tokens and one of 1,000, more waiting: at least 90 % occupancy', () => {
  const simulation = new Simulation({ numBlocks: 4096, maxModelLen: 2048, maxNumBatchedTokens: 64 })
  for (let i = 0; i < 200; i++) simulation.add(request(`${i}`, [i], { maxTokens: i % 8 === 0 ? 1000 : 100 }))
  // Measured while there is somebody to wait: the last round drains in any scheme.
  while (simulation.scheduler.waiting > 0) simulation.step()
  const occupied = simulation.steps.reduce((sum, step) => sum + step.length, 0)
  const occupancy = occupied / (8 * simulation.steps.length)
  // A static batch is as long as its longest member: (7 * 100 + 1000) / (8 * 1000) = 21 %.
  assert.ok(occupancy >= 0.9, `occupancy ${occupancy}`)
  simulation.run()
  assert.equal(simulation.finished.length, 200)
})

test('a preempted sequence keeps its sampled tokens and ends as if alone', () => {
  const options = { numBlocks: 16, maxModelLen: 64, enablePrefixCaching: true }
  const crowded = new Simulation(options)
  const requests = range(6).map((i) => request(`${i}`, range(7, 20 * i), { maxTokens: 40 }))
  for (const each of requests) crowded.add(each)
  crowded.run()
  assert.ok(crowded.scheduler.counts.preemptions > 5)
  for (const each of requests) {
    const alone = new Simulation(options)
    alone.add(each)
    alone.run()
    assert.deepEqual(crowded.outputs.get(`${each.id}/0`), alone.outputs.get(`${each.id}/0`))
  }
})

test('the latest of the lowest class is preempted, and the first never', () => {
  const simulation = new Simulation({ numBlocks: 12, maxModelLen: 48 })
  simulation.add(request('batch', range(8), { maxTokens: 30 }, { class: 9 }))
  simulation.step()
  simulation.add(request('first', range(8, 50), { maxTokens: 30 }))
  simulation.add(request('second', range(8, 80), { maxTokens: 30 }))
  simulation.run()
  assert.ok(simulation.scheduler.counts.preemptions > 0)
  assert.deepEqual(simulation.finished, ['first/0', 'second/0', 'batch/0'])
})

test('a lower class number is admitted first, and within a class the earlier request', () => {
  const simulation = new Simulation({ maxNumSeqs: 1 })
  for (const [id, level] of [
    ['a', 1],
    ['b', 1],
    ['c', 0],
    ['d', 0],
  ] as const) {
    simulation.add(request(id, [1], { maxTokens: 2 }, { class: level }))
  }
  simulation.run()
  assert.deepEqual(simulation.finished, ['c/0', 'd/0', 'a/0', 'b/0'])
})

test('what does not fit yet is not passed by what would, so a large request does not starve', () => {
  const simulation = new Simulation({ numBlocks: 16, maxModelLen: 64 })
  simulation.add(request('small', range(30), { maxTokens: 8 }))
  simulation.step()
  simulation.add(request('large', range(40, 100), { maxTokens: 4 }))
  for (let i = 0; i < 30; i++) simulation.add(request(`later ${i}`, range(4, 200 + i), { maxTokens: 30 }))
  simulation.run()
  assert.equal(simulation.finished.indexOf('large/0'), 1)
})

test('a request that needs every block is admitted when nobody else runs', () => {
  const simulation = new Simulation({ numBlocks: 200, maxModelLen: 801, maxNumBatchedTokens: 64 })
  simulation.add(request('all', range(796), { maxTokens: 5 }))
  simulation.run()
  assert.equal(simulation.outputs.get('all/0')!.length, 5)
})

test('one block in a hundred stays free for those that run when another is admitted', () => {
  const simulation = new Simulation({ numBlocks: 200, maxNumBatchedTokens: 900, maxModelLen: 500 })
  simulation.add(request('a', range(398), { maxTokens: 2 }))
  simulation.add(request('b', range(396, 500), { maxTokens: 2 }))
  // 100 + 99 blocks would fit, and leave one.
  assert.equal(simulation.step().length, 1)
  assert.equal(simulation.scheduler.counts.preemptions, 0)
  simulation.run()
  assert.equal(simulation.steps.length, 4)
})

test('a request that can never fit is refused at once, naming the field and the fix', () => {
  const scheduler = new Scheduler({ ...defaults, numBlocks: 16 })
  const refusal = (prompt: number, maxTokens: number) => () => scheduler.add(request('x', range(prompt), { maxTokens }))
  assert.throws(refusal(60, 6), /max_tokens: 60 prompt tokens and up to 6 more do not fit in the 64 tokens of KV cache/)
  assert.throws(refusal(128, 1), /prompt: 128 tokens; at most 127 leave room.*--max-model-len 128/)
  assert.throws(refusal(0, 1), /prompt: empty/)
  assert.equal(scheduler.hasWork, false)
  assert.throws(() => new Scheduler({ ...defaults, maxNumBatchedTokens: 7 }), /--max-num-batched-tokens 7 is below/)
  assert.throws(() => new Scheduler({ ...defaults, enableChunkedPrefill: false }), /without chunked prefill/)
  assert.throws(() => new Scheduler({ ...defaults, numBlocks: 0 }), /numBlocks: 0/)
})

test('sequences end by max_tokens, the length of the model, end of sequence and stop tokens', () => {
  const simulation = new Simulation({ maxModelLen: 12, eosTokenIds: [777] })
  const ending = (generated: number[], sampling: Parameters<typeof request>[2]) => {
    const [over] = simulation.scheduler.add(request('r', range(4), sampling, { resume: [Uint32Array.from(generated)] }))
    simulation.scheduler.abort('r')
    return over?.ending ?? null
  }
  assert.equal(ending([1, 2], { maxTokens: 3 }), null)
  assert.deepEqual(ending([1, 2, 3], { maxTokens: 3 }), { reason: 'length' })
  assert.deepEqual(ending(range(8), { maxTokens: 90 }), { reason: 'length' })
  assert.deepEqual(ending([1, 777], {}), { reason: 'stop' })
  assert.equal(ending([1, 777], { ignoreEos: true }), null)
  assert.equal(ending([1, 777], { minTokens: 3 }), null)
  assert.deepEqual(ending([1, 5], { stopTokenIds: [5] }), { reason: 'stop', stopTokenId: 5 })
  assert.deepEqual(ending([1, 777], { stopTokenIds: [777], ignoreEos: true }), { reason: 'stop', stopTokenId: 777 })
  assert.equal(ending([], { stopTokenIds: [4] }), null)
})

test('a higher class does not wait for the places or the blocks of a lower one', () => {
  for (const changes of [{ maxNumSeqs: 2 }, { numBlocks: 16, maxModelLen: 64 }]) {
    const simulation = new Simulation(changes)
    for (const id of ['a', 'b'])
      simulation.add(request(id, range(20, id.charCodeAt(0)), { maxTokens: 10 }, { class: 5 }))
    for (let i = 0; i < 3; i++) simulation.step()
    simulation.add(request('urgent', range(30, 300), { maxTokens: 3 }, { class: 1 }))
    const names = simulation.step().map(({ sequence }) => sequence.request.id)
    assert.deepEqual(names, ['a', 'urgent'])
    assert.equal(simulation.scheduler.counts.preemptions, 1)
    simulation.run()
    assert.deepEqual(simulation.finished, ['urgent/0', 'a/0', 'b/0'])
  }
})

test('a higher class overtakes the long prompts of a lower one, and nobody is preempted in vain', () => {
  const simulation = new Simulation({ numBlocks: 64, maxModelLen: 250 })
  simulation.add(request('keeps', range(100, 900), { maxTokens: 90 }, { class: 0 }))
  for (let i = 0; i < 5; i++) simulation.step()
  simulation.add(request('low', range(60), { maxTokens: 4 }, { class: 5 }))
  simulation.step()
  simulation.add(request('short', range(8, 500), { maxTokens: 1 }, { class: 1 }))
  assert.deepEqual(
    simulation.step().map(({ sequence, count }) => `${sequence.request.id}:${count}`),
    ['keeps:1', 'short:8', 'low:20'],
  )
  // Does not fit beside 'keeps', with or without the blocks of 'low'.
  simulation.add(request('large', range(160, 2000), { maxTokens: 4 }, { class: 1 }))
  simulation.step()
  assert.equal(simulation.scheduler.counts.preemptions, 0)
  simulation.run()
})

test('a step costs the same whether ten or ten thousand sequences wait', () => {
  const touches = [10, 10_000].map((waiting) => {
    let touched = 0
    const simulation = new Simulation({ maxNumSeqs: 4, maxNumBatchedTokens: 16 })
    for (let i = 0; i < waiting; i++) {
      const counted = request(`${i}`, [i % 7, 1, 2, 3, 4, 5, 6], { n: 1 + (i % 2), maxTokens: 4 })
      // Whatever looks at a sequence that waits reads its request.
      simulation.add(
        new Proxy(counted, {
          get(target, field) {
            touched++
            return Reflect.get(target, field)
          },
        }),
      )
    }
    touched = 0
    const most = range(10).map(() => {
      const before = touched
      for (const slice of simulation.scheduler.schedule()) {
        simulation.scheduler.advance(slice)
        for (const sequence of slice.yieldsToken ? [slice.sequence, ...slice.forks] : []) {
          sequence.tokens.push(1)
          if (simulation.scheduler.ending(sequence)) simulation.scheduler.finish(sequence)
        }
      }
      return touched - before
    })
    return Math.max(...most)
  })
  // A heap is deeper by log2(1000) comparisons for each sequence that comes or goes.
  assert.ok(touches[1]! < touches[0]! + 4 * 2 * 10 * 4, `${touches}`)
})

test('the waiting queue is bounded if it is told so, and what leaves makes room', () => {
  const simulation = new Simulation({ maxNumWaiting: 5 })
  simulation.add(request('a', range(4), { n: 4 }))
  assert.throws(
    () => simulation.add(request('b', range(4), { n: 2 })),
    /n: 2 more sequences beside the 4 that wait; at most 5/,
  )
  assert.equal(simulation.scheduler.waiting, 4)
  simulation.scheduler.abort('a', 3)
  simulation.add(request('b', range(4), { n: 2 }))
  simulation.run()
  assert.equal(simulation.finished.length, 5)
})

test('static batching, for comparison: nobody joins before all have ended', () => {
  const simulation = new Simulation({ maxNumSeqs: 2, policy: 'static' })
  for (const [id, maxTokens] of [
    ['a', 3],
    ['b', 5],
    ['c', 2],
  ] as const) {
    simulation.add(request(id, [1], { maxTokens }))
  }
  simulation.run()
  assert.deepEqual(
    simulation.steps.map((step) => step.map(({ name }) => name[0]).join('')),
    ['ab', 'ab', 'ab', 'b', 'b', 'c', 'c'],
  )
})

test('an aborted request, running, waiting or half finished, leaves nothing behind', () => {
  const simulation = new Simulation({ maxNumSeqs: 2 })
  simulation.add(request('a', range(30), { n: 4 }))
  simulation.add(request('b', range(5)))
  simulation.add(request('c', range(5)))
  for (let i = 0; i < 3; i++) simulation.step()
  simulation.scheduler.abort('a', 3)
  for (const id of ['a', 'c', 'unknown']) simulation.scheduler.abort(id)
  simulation.scheduler.checkIntegrity()
  simulation.run()
  assert.deepEqual(simulation.finished, ['b/0'])
})

test('resumed ids are computed with the prompt and sampling goes on behind them', () => {
  const options = { n: 2, maxTokens: 12 }
  const whole = new Simulation()
  whole.add(request('r', range(9), options))
  whole.run()
  for (let cut = 0; cut <= 12; cut++) {
    const ids = [0, 1].map((choice) => whole.outputs.get(`r/${choice}`)!)
    const resume = [Uint32Array.from(ids[0]!.slice(0, cut)), Uint32Array.from(ids[1]!.slice(0, 12 - cut))]
    const resumed = new Simulation()
    resumed.add(request('r', range(9), options, { resume }))
    resumed.run()
    assert.deepEqual([...resume[0]!, ...(resumed.outputs.get('r/0') ?? [])], ids[0])
    assert.deepEqual([...resume[1]!, ...(resumed.outputs.get('r/1') ?? [])], ids[1])
    assert.equal(resumed.finished.length, 2)
  }
})

test('in a random load with aborts everything ends, nothing leaks and outputs are those of a run alone', () => {
  const seen = { preemptions: 0, prefixHits: 0 }
  for (let seed = 0; seed < 12; seed++) {
    const roll = dice(seed)
    const options = {
      numBlocks: 20 + roll(40),
      maxModelLen: 80,
      maxNumSeqs: 2 + roll(8),
      maxNumBatchedTokens: 10 + roll(60),
      longPrefillTokenThreshold: roll(2) * 5,
      enablePrefixCaching: roll(3) > 0,
    }
    const simulation = new Simulation(options)
    const requests = range(60).map((i) => {
      const prompt = [...range(roll(20), 1 + roll(2)), ...range(1 + roll(8), roll(3))]
      const sampling = { n: 1 + roll(3), maxTokens: 1 + roll(40) }
      return request(`${i}`, prompt, sampling, { class: roll(2), salt: `${roll(2)}` })
    })
    const aborted = new Set<string>()
    for (const each of requests) {
      simulation.add(each)
      for (let i = roll(6); i > 0; i--) simulation.step()
      if (roll(8) > 0) continue
      const victim = requests[roll(60)]!.id
      simulation.scheduler.abort(victim)
      aborted.add(victim)
    }
    simulation.run()
    seen.preemptions += simulation.scheduler.counts.preemptions
    seen.prefixHits += simulation.scheduler.counts.prefixHits
    for (const each of requests.filter(({ id }) => !aborted.has(id)).slice(0, 10)) {
      const alone = new Simulation({ maxModelLen: 80 })
      alone.add(each)
      alone.run()
      for (const [name, ids] of alone.outputs)
        assert.deepEqual(simulation.outputs.get(name), ids, `seed ${seed} ${name}`)
    }
  }
  assert.ok(seen.preemptions > 20 && seen.prefixHits > 200, JSON.stringify(seen))
})
