// The scheduler against its plain twin: the same tokens for every request, with less work and less room.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PlainScheduler } from '../../../engine/scheduler/plain.ts'
import { dice, range, request } from './requests.ts'
import { defaults, Simulation } from './simulation.ts'

/** Requests, aborts and steps by chance, the same ones for every policy. */
function load(seed: number, policy: 'continuous' | 'static' | 'plain') {
  const roll = dice(seed)
  const simulation = new Simulation({
    policy,
    numBlocks: 24 + roll(60),
    maxModelLen: 90,
    maxNumSeqs: 2 + roll(8),
    maxNumBatchedTokens: 10 + roll(60),
    longPrefillTokenThreshold: roll(2) * 9,
    enablePrefixCaching: roll(3) > 0,
  })
  const aborted = new Set<string>()
  for (let i = 0; i < 50; i++) {
    const prompt = [...range(roll(30), 1 + roll(2)), ...range(1 + roll(8), roll(3))]
    const sampling = { n: 1 + roll(4), maxTokens: 1 + roll(40) }
    simulation.add(request(`${i}`, prompt, sampling, { class: roll(3), salt: `${roll(2)}` }))
    for (let steps = roll(5); steps > 0; steps--) simulation.step()
    if (roll(9) > 0) continue
    aborted.add(`${i}`)
    simulation.scheduler.abort(`${i}`)
  }
  simulation.run()
  return { simulation, aborted }
}

test('in random loads every policy gives every request the same tokens', () => {
  const computed = { continuous: 0, static: 0, plain: 0 }
  const steps = { ...computed }
  for (let seed = 0; seed < 25; seed++) {
    const runs = (['continuous', 'static', 'plain'] as const).map((policy) => {
      const { simulation, aborted } = load(seed, policy)
      computed[policy] += simulation.computed
      steps[policy] += simulation.steps.length
      return [...simulation.outputs].filter(([name]) => !aborted.has(name.split('/')[0]!)).sort()
    })
    assert.deepEqual(runs[0], runs[2], `seed ${seed}: continuous and plain`)
    assert.deepEqual(runs[1], runs[2], `seed ${seed}: static and plain`)
    assert.ok(runs[0]!.length > 50)
  }
  assert.ok(steps.continuous < 0.85 * steps.static, JSON.stringify(steps))
  assert.ok(steps.continuous < 0.85 * steps.plain, JSON.stringify(steps))
  assert.ok(computed.continuous < computed.plain, JSON.stringify(computed))
})

test('the plain twin reserves the longest a sequence may become, and refuses beams', () => {
  const scheduler = new PlainScheduler(defaults)
  scheduler.add(request('a', range(5), { maxTokens: 20 }))
  scheduler.schedule()
  assert.equal(scheduler.blocks.total - scheduler.blocks.free, 6)
  scheduler.checkIntegrity()
  scheduler.abort('a')
  assert.equal(scheduler.blocks.free, scheduler.blocks.total)
  assert.throws(() => scheduler.add(request('b', [1], { useBeamSearch: true })), /use_beam_search: the plain scheduler/)
})
