// The engine under everything at once, on a real model: forks, beams, shared prompts, classes, aborts and a pool that is
// too small, with every index checked by the kernels. Who is not aborted gets what it gets alone.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Engine, StepOutput } from '../../engine/engine.ts'
import { dice, range, request } from './scheduler/requests.ts'
import { drain, finish, openStories, type Stories } from './stories.ts'

let stories: Stories
before(async () => {
  stories = await openStories({ debug: true })
})
after(() => stories.close())

function requests(roll: (below: number) => number) {
  return range(30, 0).map((i) => {
    const prompt = [1, ...range(16 * roll(5), 10 + 100 * roll(2)), ...range(roll(20), 300 + roll(2))]
    const n = 1 + (roll(3) === 0 ? roll(5) : 0)
    const sampling = { n, maxTokens: 1 + roll(30), temperature: roll(2), seed: `${i}`, ignoreEos: roll(2) === 0 }
    return request(`${i}`, prompt, { ...sampling, useBeamSearch: n > 1 && roll(2) === 0 }, { class: roll(3) })
  })
}

for (const seed of [1, 2, 3]) {
  test(`load ${seed}: what each gets is what it gets alone, and nothing is left`, () => {
    const roll = dice(seed)
    const all = requests(roll)
    const engine: Engine = stories.engine({
      numBlocks: 30 + roll(10),
      maxModelLen: 200,
      maxNumSeqs: 8 + roll(8),
      maxNumBatchedTokens: 40 + roll(100),
      longPrefillTokenThreshold: roll(2) * 32,
    })
    const aborted = new Set<string>()
    const outputs: StepOutput[] = []
    for (const each of all) {
      engine.add(each)
      for (let steps = roll(4); steps > 0; steps--) outputs.push(...engine.step())
      engine.checkIntegrity()
      if (roll(6) > 0) continue
      const victim = `${roll(all.length)}`
      engine.abort(victim)
      aborted.add(victim)
    }
    outputs.push(...drain(engine))
    engine.checkIntegrity()
    assert.equal(engine.stats().freeBlocks, engine.stats().totalBlocks)
    assert.ok(engine.stats().preemptions > 0)
    for (const each of all.filter(({ id }) => !aborted.has(id))) {
      const ids = range(each.sampling.n, 0).map((choice) =>
        outputs.flatMap((output) =>
          output.type === 'token' && output.id === each.id && output.choice === choice ? [output.token] : [],
        ),
      )
      assert.deepEqual(ids, finish(stories.engine({ numBlocks: 64 }), [each]).get(each.id), each.id)
    }
  })
}
