// Beam search against vLLM's own way of doing it: every beam a request of one token, every step from scratch.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { EngineOptions, StepOutput } from '../../engine/engine.ts'
import type { Sampling } from '../../queue/job.ts'
import { dice, range, request } from './scheduler/requests.ts'
import { drain, finish, golden, openStories, options, type Stories } from './stories.ts'

let stories: Stories
before(async () => {
  stories = await openStories()
})
after(() => stories.close())

const prompt = [...golden[3]!.ids, ...golden[3]!.greedy.slice(0, 9)]

type Beams = Partial<Sampling> & { n: number; maxTokens: number }
type Reference = { ids: number[]; logprob: number; isEnded: boolean }

/** vllm/entrypoints/llm.py, beam_search; that min_tokens holds is ours. */
function reference(
  { n, maxTokens, lengthPenalty = 1, ignoreEos = false, minTokens = 0 }: Beams,
  eos: readonly number[],
): Reference[] {
  const engine = stories.engine()
  let beams: Reference[] = [{ ids: [], logprob: 0, isEnded: false }]
  const completed: Reference[] = []
  const score = ({ ids, logprob, isEnded }: Reference) =>
    logprob / (prompt.length + ids.length - (isEnded ? 1 : 0)) ** lengthPenalty
  const best = (list: Reference[]) => list.sort((a, b) => score(b) - score(a)).slice(0, n)
  for (let step = 0; step < maxTokens && beams.length > 0; step++) {
    const next: Reference[] = []
    for (const { ids, logprob } of beams) {
      engine.add(request('one', [...prompt, ...ids], { maxTokens: 1, logprobs: 2 * n, ignoreEos: true }))
      const [output] = drain(engine)
      assert.ok(output?.type === 'token')
      for (const candidate of output.logprobs!.slice(1)) {
        const isEnded = eos.includes(candidate.id) && !ignoreEos
        const beam = { ids: [...ids, candidate.id], logprob: logprob + candidate.logprob, isEnded }
        if (!isEnded) next.push(beam)
        else if (beam.ids.length >= minTokens) completed.push(beam)
      }
    }
    beams = best(next)
  }
  return best([...completed, ...beams])
}

const searches: Beams[] = [
  { n: 1, maxTokens: 10 },
  { n: 3, maxTokens: 20 },
  { n: 4, maxTokens: 24, lengthPenalty: 0 },
  { n: 4, maxTokens: 24, lengthPenalty: 3 },
  { n: 5, maxTokens: 16, lengthPenalty: -1 },
  { n: 6, maxTokens: 16, ignoreEos: true },
  { n: 3, maxTokens: 16, minTokens: 12 },
  { n: 2, maxTokens: 40, lengthPenalty: 4 },
]
/** Common tokens of stories, so that answers end at all lengths. */
const eosTokenIds = [2, 426, 432, 269]

const ask = (sampling: Beams) => request('beam', prompt, { ...sampling, useBeamSearch: true })
const run = (sampling: Beams, changes: Partial<EngineOptions> = {}) =>
  finish(stories.engine({ eosTokenIds, ...changes }), [ask(sampling)]).get('beam')!

test("the answers are those of vLLM's search, best first", () => {
  let ended = 0
  for (const sampling of searches) {
    const expected = reference(sampling, eosTokenIds)
    assert.deepEqual(
      run(sampling),
      expected.map(({ ids }) => ids),
      JSON.stringify(sampling),
    )
    ended += expected.filter(({ isEnded }) => isEnded).length
  }
  assert.ok(ended > 5, `${ended} answers ended before max_tokens`)
})

test('a search that can no longer be improved ends early', () => {
  const engine = stories.engine({ eosTokenIds: range(512, 0).filter((id) => id % 3 > 0) })
  finish(engine, [ask({ n: 2, maxTokens: 100 })])
  assert.ok(engine.stats().steps < 50, `${engine.stats().steps} steps`)
})

test('among others, in chunks and preempted, the same answers', () => {
  const roll = dice(5)
  const crowd = range(8).map((i) =>
    request(`other ${i}`, range(1 + roll(40), 3 + i), { maxTokens: 20 + roll(40), n: 1 + roll(2), ignoreEos: true }),
  )
  const small = { numBlocks: 16, maxModelLen: 128, maxNumBatchedTokens: 24, maxNumSeqs: 16 }
  let preemptions = 0
  for (const sampling of searches.slice(1)) {
    const expected = run(sampling)
    for (const changes of [{}, { maxNumBatchedTokens: 7, maxNumSeqs: 6 }, { enablePrefixCaching: false }, small]) {
      const engine = stories.engine({ eosTokenIds, ...changes })
      // Under way when those come for whom it has to make room.
      engine.add({ ...ask(sampling), class: 1 })
      const outputs = range(6).flatMap(() => engine.step())
      for (const other of crowd) engine.add(other)
      outputs.push(...drain(engine))
      for (const [choice, ids] of expected.entries()) {
        const own = outputs.filter((output) => output.id === 'beam' && 'choice' in output && output.choice === choice)
        assert.deepEqual(
          own.map((output) => 'token' in output && output.token),
          ids,
        )
      }
      assert.equal(engine.stats().freeBlocks, engine.stats().totalBlocks)
      if (changes === small) preemptions += engine.stats().preemptions
    }
  }
  assert.ok(preemptions > 20, `${preemptions} preemptions`)
})

test('two searches that do not fit together come one after the other', () => {
  const sampling = { n: 5, maxTokens: 40, ignoreEos: true }
  const engine = stories.engine({ numBlocks: 22, maxModelLen: 128 })
  const two = ['first', 'second'].map((id) => ({ ...ask(sampling), id }))
  const outputs = finish(engine, two)
  assert.deepEqual(outputs.get('first'), run(sampling))
  assert.deepEqual(outputs.get('second'), run(sampling))
})

test('beams compute the prompt once, share its blocks and hold their own tails', () => {
  const engine = stories.engine({ eosTokenIds: [] })
  engine.add(ask({ n: 4, maxTokens: 12 }))
  while (engine.stats().steps < 6) engine.step()
  const { promptTokens, totalBlocks, freeBlocks } = engine.stats()
  assert.equal(promptTokens, prompt.length)
  const shared = Math.floor(prompt.length / options.blockSize)
  assert.ok(totalBlocks - freeBlocks <= shared + 4 * (Math.ceil((prompt.length + 5) / options.blockSize) - shared))
  engine.checkIntegrity()
  drain(engine)
})

test('answers come at the end as tokens in order, with log-probabilities, and the last one says why', () => {
  const sampling = { n: 3, maxTokens: 16, logprobs: 2 }
  const engine = stories.engine({ eosTokenIds })
  engine.add(ask(sampling))
  const outputs = drain(engine)
  for (const [choice, { ids, logprob, isEnded }] of reference(sampling, eosTokenIds).entries()) {
    const own = outputs.filter((output) => output.type === 'token' && output.choice === choice) as (StepOutput & {
      type: 'token'
    })[]
    assert.deepEqual(
      own.map(({ index }) => index),
      range(ids.length, 0),
    )
    assert.equal(own.at(-1)!.finish, isEnded ? 'stop' : 'length')
    const sum = own.reduce((total, { logprobs }) => total + logprobs![0]!.logprob, 0)
    assert.equal(sum, logprob)
    assert.ok(own.every(({ logprobs, token }) => logprobs!.length === 3 && logprobs![0]!.id === token))
  }
})

test('an aborted search leaves nothing behind, and one that cannot fit is refused', () => {
  const engine = stories.engine({ numBlocks: 20, maxModelLen: 128, maxNumSeqs: 8 })
  engine.add(ask({ n: 4, maxTokens: 30 }))
  for (let i = 0; i < 5; i++) engine.step()
  engine.abort('beam', 2)
  assert.equal(engine.stats().running, 4)
  engine.abort('beam')
  assert.equal(engine.hasWork, false)
  assert.equal(engine.stats().freeBlocks, 20)
  engine.add(ask({ n: 6, maxTokens: 80 }))
  engine.add(ask({ n: 9, maxTokens: 2 }))
  const messages = drain(engine).map((output) => (output.type === 'failed' ? output.message.split(';')[0] : ''))
  assert.deepEqual(messages, [
    `n: 6 beams of ${prompt.length} prompt tokens and up to 80 more do not fit in the 320 tokens of KV cache`,
    'n: 9 beams run together',
  ])
})

test('what the journal already holds of the answers is not said again', () => {
  const sampling = { n: 2, maxTokens: 8 }
  const [first, second] = run(sampling)
  const resume = [Uint32Array.from(first!), Uint32Array.from(second!.slice(0, 3))]
  const engine = stories.engine({ eosTokenIds })
  engine.add({ ...ask(sampling), resume })
  const outputs = drain(engine)
  assert.deepEqual([outputs[0]!.type, 'index' in outputs[0]! && outputs[0].index], ['finish', first!.length])
  assert.deepEqual(
    outputs.slice(1).map((output) => 'token' in output && output.token),
    second!.slice(3),
  )
})
