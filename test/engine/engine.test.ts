// The engine over a real model: what a request gets is its own, whatever else happens in the engine (row U17).
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { EngineOptions, StepOutput } from '../../engine/engine.ts'
import type { SequenceRequest } from '../../engine/scheduler/sequence.ts'
import type { Sampling } from '../../queue/job.ts'
import { dice, range, request } from './scheduler/requests.ts'
import { drain, finish, golden, openStories, type Stories } from './stories.ts'

let stories: Stories
before(async () => {
  stories = await openStories()
})
after(() => stories.close())

/** 60 tokens, several blocks long. */
const prompt = [...golden[3]!.ids, ...golden[3]!.greedy.slice(0, 36)]

const samplings: Record<string, Partial<Sampling>> = {
  greedy: { maxTokens: 40, ignoreEos: true },
  seeded: { maxTokens: 40, ignoreEos: true, temperature: 0.9, topP: 0.95, seed: '-4611686018427387905' },
  'seeded with penalties': {
    maxTokens: 40,
    ignoreEos: true,
    temperature: 1.2,
    topK: 50,
    seed: '11',
    repetitionPenalty: 1.2,
    frequencyPenalty: 0.2,
    presencePenalty: 0.1,
    logitBias: [[400, 1]],
  },
  'four choices': { maxTokens: 24, ignoreEos: true, temperature: 1, seed: '5', n: 4 },
}

/** A run alone, in an engine of its own. */
function alone(sampling: Partial<Sampling>, changes: Partial<EngineOptions> = {}): number[][] {
  return finish(stories.engine(changes), [request('r', prompt, sampling)]).get('r')!
}

function others(count: number): SequenceRequest[] {
  const roll = dice(5)
  return range(count).map((i) => {
    const ids = [1, ...range(roll(70), 3 + i)]
    return request(`other ${i}`, ids, { maxTokens: 10 + roll(50), temperature: roll(2), seed: `${i}` })
  })
}

test('the golden continuations of stories260K', () => {
  const requests = golden.map(({ ids, greedy }, i) => request(`${i}`, ids, { maxTokens: greedy.length }))
  const outputs = finish(stories.engine(), requests)
  for (const [i, { greedy }] of golden.entries()) assert.deepEqual(outputs.get(`${i}`)![0], greedy)
})

const tokensOf = (outputs: StepOutput[]) => outputs.filter((output) => output.type === 'token')

for (const [name, sampling] of Object.entries(samplings)) {
  test(`${name}: alone or among 32 others, the same ids`, () => {
    const crowd = others(32)
    const outputs = finish(stories.engine(), [
      ...crowd.slice(0, 20),
      request('r', prompt, sampling),
      ...crowd.slice(20),
    ])
    assert.deepEqual(outputs.get('r'), alone(sampling))
  })

  test(`${name}: whole or in chunks of any size, the same ids`, () => {
    const expected = alone(sampling)
    for (const maxNumBatchedTokens of [4, 7, 16, 33]) {
      assert.deepEqual(alone(sampling, { maxNumBatchedTokens, maxNumSeqs: 4 }), expected)
    }
    assert.deepEqual(alone(sampling, { blockSize: 8, numBlocks: 512 }), expected)
  })

  test(`${name}: with a cold and a warm cache, the same ids`, () => {
    const engine = stories.engine()
    const cold = finish(engine, [request('r', prompt, sampling)])
    const warm = finish(engine, [request('r', prompt, sampling)])
    assert.deepEqual(warm, cold)
    assert.equal(engine.stats().prefixHits, 48)
    assert.deepEqual(alone(sampling, { enablePrefixCaching: false }), cold.get('r'))
  })

  test(`${name}: preempted or not, the same ids`, () => {
    const engine = stories.engine({ numBlocks: 40, maxModelLen: 128 })
    const outputs: StepOutput[] = []
    engine.add(request('r', prompt, sampling, { class: 9 }))
    for (let i = 0; i < 10; i++) outputs.push(...engine.step())
    // All others come first by class, so that the request is the victim.
    for (const other of others(12)) engine.add(other)
    while (engine.stats().preemptions === 0) outputs.push(...engine.step())
    const ids = () =>
      range(sampling.n ?? 1, 0).map((choice) =>
        tokensOf(outputs).flatMap((output) => (output.id === 'r' && output.choice === choice ? [output.token] : [])),
      )
    const expected = alone(sampling)
    assert.notDeepEqual(ids(), expected, 'it was at work when a victim was needed')
    outputs.push(...drain(engine))
    assert.deepEqual(ids(), expected)
  })

  test(`${name}: cut anywhere and resumed on another engine, the same ids`, () => {
    const expected = alone(sampling)
    const engine = stories.engine()
    for (let cut = 0; cut <= sampling.maxTokens!; cut++) {
      // The choices were not equally far.
      const resume = expected.map((ids, choice) => Uint32Array.from(ids.slice(0, Math.max(0, cut - 3 * choice))))
      const rest = finish(engine, [request('r', prompt, sampling, { resume })]).get('r')!
      assert.deepEqual(
        rest.map((ids, choice) => [...resume[choice]!, ...ids]),
        expected,
        `cut at ${cut}`,
      )
    }
  })
}

test('the plain scheduler and static batches give the same ids', () => {
  const crowd = others(24)
  const named = Object.entries(samplings).map(([name, sampling]) => request(name, prompt, sampling))
  const run = (policy: NonNullable<EngineOptions['policy']>) =>
    finish(stories.engine({ policy, maxNumSeqs: 16, numBlocks: 64 }), [...crowd, ...named])
  const expected = run('continuous')
  assert.deepEqual(run('plain'), expected)
  assert.deepEqual(run('static'), expected)
})

test('not only the ids: log-probabilities are the same to the last bit', () => {
  const asked = request('r', prompt, { maxTokens: 30, ignoreEos: true, temperature: 1, seed: '3', logprobs: 4 })
  const records = (changes: Partial<EngineOptions>, crowd: SequenceRequest[], times = 1) => {
    const engine = stories.engine(changes)
    for (const other of crowd) engine.add(other)
    const runs = range(times).map(() => {
      engine.add(asked)
      return tokensOf(drain(engine)).flatMap(({ id, logprobs }) => (id === 'r' ? [logprobs] : []))
    })
    return runs.at(-1)
  }
  const expected = records({}, [])
  assert.equal(expected?.flat().length, 30 * 5)
  assert.deepEqual(records({}, others(32)), expected)
  assert.deepEqual(records({ maxNumBatchedTokens: 7, maxNumSeqs: 4 }, []), expected)
  assert.deepEqual(records({}, [], 2), expected)
})

test('the choices of a request equal requests of their own', () => {
  const sampling = samplings['four choices']!
  const four = alone(sampling)
  assert.equal(new Set(four.map(String)).size, 4)
  const engine = stories.engine({ enablePrefixCaching: false })
  finish(engine, [request('r', prompt, sampling)])
  assert.equal(engine.stats().promptTokens, prompt.length)
})

test('end of sequence, stop tokens, max_tokens and the length of the model end a sequence, with their reason', () => {
  const continuation = alone({ maxTokens: 30, ignoreEos: true })[0]!
  const stopAt = continuation.findIndex((id, i) => i > 4 && continuation.indexOf(id) === i)
  const stop = continuation[stopAt]!
  const last = (sampling: Partial<Sampling>, changes: Partial<EngineOptions> = {}) => {
    const engine = stories.engine(changes)
    engine.add(request('r', prompt, sampling))
    const outputs = tokensOf(drain(engine))
    for (const output of outputs.slice(0, -1)) assert.equal(output.finish, undefined)
    const { index, finish, stopTokenId } = outputs.at(-1)!
    return { index, finish, stopTokenId }
  }
  assert.deepEqual(last({}, { eosTokenIds: [stop] }), { index: stopAt, finish: 'stop', stopTokenId: undefined })
  assert.deepEqual(last({ stopTokenIds: [stop] }), { index: stopAt, finish: 'stop', stopTokenId: stop })
  assert.deepEqual(last({ maxTokens: 3 }), { index: 2, finish: 'length', stopTokenId: undefined })
  assert.deepEqual(last({ maxTokens: 90 }, { maxModelLen: 64 }), { index: 3, finish: 'length', stopTokenId: undefined })
  const held = last({ stopTokenIds: [stop], minTokens: stopAt + 2, maxTokens: stopAt + 2 })
  assert.equal(held.index, stopAt + 1)
})

test('equal prompts and equal beginnings in a burst give what each gives alone', () => {
  const sampled = (seed: string) => ({ maxTokens: 20, ignoreEos: true, temperature: 1, seed })
  // 64 tokens are four blocks, so of equal prompts the last block is copied to compute its last token again.
  const whole = [...prompt, 5, 6, 7, 8]
  const burst = range(6, 0).map((i) => request(`${i}`, i < 3 ? whole : [...prompt, 20 + i], sampled(`${i}`)))
  const expected = burst.map((each) => finish(stories.engine(), [each]).get(each.id))
  for (const changes of [
    {},
    { longPrefillTokenThreshold: 16, maxNumBatchedTokens: 70 },
    { maxNumBatchedTokens: 9, maxNumSeqs: 8 },
  ]) {
    const engine = stories.engine(changes)
    const outputs = finish(engine, burst)
    for (const [i, { id }] of burst.entries())
      assert.deepEqual(outputs.get(id), expected[i], `${id} ${JSON.stringify(changes)}`)
    // 48 of the common 60 are whole blocks.
    assert.equal(engine.stats().promptTokens, 64 + 2 * 1 + 3 * (61 - 48))
  }
})

test('ten users ask about one document at once: nine report its tokens as cached, and it is computed once', () => {
  const document = range(160, 10)
  const users = range(10, 0).map((i) =>
    request(`${i}`, [...document, 300 + i, 5, 6, 7], { maxTokens: 4, ignoreEos: true }),
  )
  for (const maxNumBatchedTokens of [512, 64]) {
    const engine = stories.engine({ maxNumBatchedTokens })
    for (const user of users) engine.add(user)
    const outputs = tokensOf(drain(engine))
    const cached = outputs.flatMap(({ cachedTokens }) => (cachedTokens === undefined ? [] : [cachedTokens]))
    assert.deepEqual(cached, [0, ...range(9).map(() => 160)])
    assert.equal(engine.stats().promptTokens, 160 + 10 * 4)
    for (const user of users) {
      const own = outputs.flatMap(({ id, token }) => (id === user.id ? [token] : []))
      assert.deepEqual([own], finish(stories.engine({ enablePrefixCaching: false }), [user]).get(user.id))
    }
  }
})

test('n = 8: one prefill, blocks of the prompt and diverging tails, and the answers of eight requests of their own', () => {
  const sampling = { n: 8, maxTokens: 12, ignoreEos: true, temperature: 1, seed: '5' }
  const engine = stories.engine()
  engine.add(request('r', prompt, sampling))
  const outputs = engine.step()
  const held = () => engine.stats().totalBlocks - engine.stats().freeBlocks
  assert.deepEqual([outputs.length, held()], [8, 4])
  outputs.push(...engine.step())
  // Seven copies of the fourth block, which holds 12 tokens of the prompt.
  assert.deepEqual([held(), engine.stats().promptTokens], [3 + 8, prompt.length])
  outputs.push(...drain(engine))
  for (const choice of range(8, 0)) {
    const ids = tokensOf(outputs).flatMap((output) => (output.choice === choice ? [output.token] : []))
    // A request of its own that is only this choice: the others are over before they begin.
    const resume = range(8, 0).map((other) => (other === choice ? new Uint32Array() : new Uint32Array(12)))
    const own = finish(stories.engine({ enablePrefixCaching: false }), [request('r', prompt, sampling, { resume })])
    assert.deepEqual(own.get('r')![choice], ids)
  }
})

test('a resume that was already complete ends at once, without a step of the model', () => {
  const engine = stories.engine()
  engine.add(request('r', prompt, { n: 2, maxTokens: 2 }, { resume: [Uint32Array.of(5, 6), Uint32Array.of(5, 6)] }))
  assert.equal(engine.hasWork, true)
  assert.deepEqual(engine.step(), [
    { type: 'finish', id: 'r', choice: 0, index: 2, finish: 'length' },
    { type: 'finish', id: 'r', choice: 1, index: 2, finish: 'length' },
  ])
  assert.equal(engine.hasWork, false)
  assert.equal(engine.stats().steps, 0)
})

test('an abort also takes back what the next step would have said', () => {
  const engine = stories.engine()
  const complete = [Uint32Array.of(5, 6), Uint32Array.of(5, 6)]
  engine.add(request('r', prompt, { n: 2, maxTokens: 2 }, { resume: complete }))
  engine.add(request('bad', []))
  engine.add(request('other', []))
  engine.abort('r', 1)
  engine.abort('bad')
  assert.deepEqual(
    engine.step().map(({ type, id }) => `${type} ${id}`),
    ['finish r', 'failed other'],
  )
})

test('a bad request fails alone, with a message that names the field', () => {
  const engine = stories.engine()
  engine.add(request('bad', [1, 512]))
  engine.add(request('long', range(256)))
  engine.add(request('bias', [1], { logitBias: [[9999, 1]] }))
  engine.add(request('good', [1], { maxTokens: 2 }))
  const outputs = drain(engine)
  const failed = outputs.filter((output) => output.type === 'failed')
  assert.deepEqual(
    failed.map(({ id, code, message }) => `${id} ${code} ${message.split(';')[0]}`),
    [
      'bad request_failed prompt: token 512',
      'long context_length_exceeded prompt: 256 tokens',
      'bias request_failed logit_bias: token 9999',
    ],
  )
  assert.equal(tokensOf(outputs).length, 2)
})

test('an abort frees the blocks for the very next step', () => {
  const engine = stories.engine({ maxNumSeqs: 1 })
  engine.add(request('a', prompt, { maxTokens: 100 }))
  engine.add(request('b', [1], { maxTokens: 1 }))
  engine.step()
  engine.abort('a')
  assert.equal(engine.stats().freeBlocks, engine.stats().totalBlocks)
  assert.deepEqual(
    tokensOf(engine.step()).map(({ id }) => id),
    ['b'],
  )
  assert.equal(engine.hasWork, false)
})

test('cached tokens come with the first token, and are not those a choice shares with its own request', () => {
  const engine = stories.engine()
  const cached = () => {
    engine.add(request('r', prompt, { n: 2, maxTokens: 3, ignoreEos: true }))
    return tokensOf(drain(engine)).map(({ choice, index, cachedTokens }) => [choice, index, cachedTokens])
  }
  const pattern = (found: number) => [
    [0, 0, found],
    [1, 0, 0],
    [0, 1, undefined],
    [1, 1, undefined],
    [0, 2, undefined],
    [1, 2, undefined],
  ]
  assert.deepEqual(cached(), pattern(0))
  assert.deepEqual(cached(), pattern(48))
})

test('stats count steps, tokens and blocks', () => {
  const engine = stories.engine()
  engine.add(request('r', prompt, { maxTokens: 5, ignoreEos: true }))
  engine.step()
  const { running, freeBlocks, totalBlocks, kvUsage, stepTokens, stepSequences } = engine.stats()
  assert.deepEqual(
    { running, freeBlocks, stepTokens, stepSequences },
    { running: 1, freeBlocks: 252, stepTokens: 60, stepSequences: 1 },
  )
  assert.equal(kvUsage, 1 - freeBlocks / totalBlocks)
  drain(engine)
  const { steps, promptTokens, generationTokens, cachedBlocks } = engine.stats()
  assert.deepEqual(
    { steps, promptTokens, generationTokens, cachedBlocks },
    { steps: 5, promptTokens: 60, generationTokens: 5, cachedBlocks: 4 },
  )
})
