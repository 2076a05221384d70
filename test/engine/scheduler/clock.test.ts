// The scheduler under a virtual clock: who waits how long for whom.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { SchedulerOptions } from '../../../engine/scheduler/limits.ts'
import { type Arrival, type Costs, VirtualRun } from '../../../scripts/bench/simulate.ts'
import { dice, range, request } from './requests.ts'
import { defaults } from './simulation.ts'

const costs: Costs = { stepMs: 10, tokenMs: 1 }
const machine: SchedulerOptions = {
  ...defaults,
  blockSize: 16,
  numBlocks: 512,
  maxModelLen: 4096,
  maxNumSeqs: 16,
  maxNumBatchedTokens: 128,
}

/** One every `everyMs`, prompts all different. */
function stream(name: string, count: number, everyMs: number, prompt: number, maxTokens: number, level = 0): Arrival[] {
  return range(count, 0).map((i) => {
    const ids = range(prompt, 1000 * (i + 1) + 1_000_000 * level)
    return { atMs: i * everyMs, request: request(`${name} ${i}`, ids, { maxTokens }, { class: level }) }
  })
}

const worstWait = (run: VirtualRun, name: string) =>
  Math.max(...[...run.served.values()].map((each) => (each.id.startsWith(name) ? each.firstTokenMs - each.atMs : 0)))

test('under a flood of a lower class a request waits for its first token no longer than its prompt and a step take', () => {
  const urgent = () => stream('urgent', 40, 2000, 100, 20)
  const alone = worstWait(new VirtualRun(machine, costs, urgent()).run(), 'urgent')
  const flood = stream('flood', 100, 0, 400, 200, 9)
  const run = new VirtualRun(machine, costs, [...flood, ...urgent()]).run()
  assert.ok(run.scheduler.counts.preemptions > 0, 'all places were taken')
  // The step under way when it arrives, and the decodes beside its prompt.
  const fullStep = costs.stepMs + costs.tokenMs * machine.maxNumBatchedTokens
  assert.ok(worstWait(run, 'urgent') <= alone + 2 * fullStep, `${worstWait(run, 'urgent')} ms; alone ${alone} ms`)
  assert.ok([...run.served.values()].every(({ finishedMs }) => Number.isFinite(finishedMs)))
})

test('with a threshold a long prompt makes no step longer than its chunk, and all who decode get a token in each', () => {
  const longPrefillTokenThreshold = 32
  const arrivals = [...stream('decode', 12, 0, 10, 400), ...stream('long', 1, 0, 3000, 5, 1)]
  arrivals.at(-1)!.atMs = 1500
  const run = new VirtualRun({ ...machine, longPrefillTokenThreshold }, costs, arrivals)
  const gaps: number[] = []
  let isWatched = false
  for (let before = 0; run.step(); before = run.nowMs) {
    isWatched ||= run.nowMs > 1500
    if (isWatched && run.scheduler.running.length === 13) gaps.push(run.nowMs - before)
  }
  assert.ok(gaps.length >= 3000 / longPrefillTokenThreshold, 'the prompt and the decodes ran side by side')
  assert.ok(Math.max(...gaps) <= costs.stepMs + costs.tokenMs * (12 + longPrefillTokenThreshold))
  assert.ok(Math.max(...gaps) <= 2.5 * (costs.stepMs + costs.tokenMs * 12))
})

test('random load in a pool that is too small: everybody ends, in order of class, and work is lost little', () => {
  const roll = dice(3)
  const arrivals = range(1500, 0).map((i) => {
    const ids = [...range(roll(200), 5000 * roll(4)), ...range(1 + roll(100), 100_000 + 1000 * i)]
    const sampling = { maxTokens: 1 + roll(300), n: 1 + (roll(8) === 0 ? roll(4) : 0) }
    return { atMs: roll(400_000), request: request(`${i}`, ids, sampling, { class: roll(3) }) }
  })
  const run = new VirtualRun({ ...machine, numBlocks: 120, maxModelLen: 700 }, costs, arrivals).run()
  const waits = range(3, 0).map((level) => {
    const own = arrivals
      .filter(({ request }) => request.class === level)
      .map(({ request }) => run.served.get(request.id)!)
    assert.ok(own.every(({ finishedMs }) => Number.isFinite(finishedMs)))
    return own.reduce((sum, { atMs, firstTokenMs }) => sum + firstTokenMs - atMs, 0) / own.length
  })
  assert.ok(waits[0]! < waits[1]! && waits[1]! < waits[2]!, `mean waits ${waits.map(Math.round)}`)
  const needed = arrivals.reduce(
    (sum, { request: { prompt, sampling } }) => sum + prompt.length + sampling.n * (sampling.maxTokens - 1),
    0,
  )
  assert.ok(run.scheduler.counts.preemptions > 100, `${run.scheduler.counts.preemptions} preemptions`)
  // Much of what is computed again is found in the cache.
  assert.ok(run.computedTokens < 1.1 * needed, `${run.computedTokens} of ${needed}`)
  run.scheduler.checkIntegrity()
  assert.equal(run.scheduler.blocks.free, 120)
})
