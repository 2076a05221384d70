// Guesses may only make an engine faster: whatever is asked for, the tokens, log-probabilities and endings are those of
// an engine that does not guess, to the last bit.
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

const speculation = { numSpeculativeTokens: 4, promptLookupMax: 4, promptLookupMin: 2, disableByBatchSize: null }
/** A story told twice over: what follows is easily guessed, and often wrongly. */
const story = [...golden[3]!.ids, ...golden[3]!.greedy.slice(0, 30)]
const prompt = [...story, ...story]

const samplings: Record<string, Partial<Sampling>> = {
  greedy: { maxTokens: 60, ignoreEos: true },
  'a low temperature': { maxTokens: 60, ignoreEos: true, temperature: 0.3, seed: '-9' },
  'a high temperature': { maxTokens: 60, ignoreEos: true, temperature: 1, topP: 0.9, seed: '4' },
  penalties: {
    maxTokens: 60,
    ignoreEos: true,
    temperature: 0.5,
    seed: '11',
    repetitionPenalty: 1.1,
    frequencyPenalty: 0.2,
    presencePenalty: 0.1,
    logitBias: [[400, 1]],
  },
  'min_tokens and bad words': {
    maxTokens: 50,
    minTokens: 30,
    stopTokenIds: [...golden[3]!.greedy.slice(30, 34)],
    badWords: [golden[3]!.greedy.slice(31, 33), [golden[3]!.greedy[40]!]],
  },
  'end of sequence': { maxTokens: 80, stopTokenIds: [golden[3]!.greedy[45]!] },
  'three choices': { maxTokens: 30, temperature: 0.4, seed: '5', n: 3, ignoreEos: true },
  'log-probabilities': { maxTokens: 40, temperature: 0.3, seed: '7', logprobs: 3, ignoreEos: true },
}

/** Everything the engine says of one request, in the order of its choices. */
function run(requests: SequenceRequest[], changes: Partial<EngineOptions>) {
  const engine = stories.engine(changes)
  for (const each of requests) engine.add(each)
  const said = drain(engine).filter((output) => output.id === 'r')
  engine.checkIntegrity()
  const stats = engine.stats()
  assert.equal(stats.freeBlocks, stats.totalBlocks)
  const choice = (output: StepOutput) => ('choice' in output ? output.choice : -1)
  return { said: said.toSorted((a, b) => choice(a) - choice(b)), stats }
}

const crowd = (count: number, first = 1): SequenceRequest[] => {
  const roll = dice(5)
  return range(count, first).map((i) => {
    const ids = [1, ...range(roll(40), 3 + i), ...range(roll(40), 3 + i)]
    return request(`other ${i}`, ids, { maxTokens: 10 + roll(50), temperature: roll(2), seed: `${i}`, ignoreEos: true })
  })
}

for (const [name, sampling] of Object.entries(samplings)) {
  test(`${name}: with guesses exactly what an engine without them says`, () => {
    const asked = request('r', prompt, sampling)
    const plain = run([asked], {})
    assert.equal(plain.stats.drafts, 0)
    const guessed = run([asked], { speculation })
    assert.deepEqual(guessed.said, plain.said)
    assert.ok(guessed.stats.draftTokens > 0)
    assert.equal(guessed.stats.generationTokens, plain.stats.generationTokens)
    for (const changes of [
      { maxNumBatchedTokens: 7, maxNumSeqs: 4 },
      { blockSize: 8, numBlocks: 512 },
    ]) {
      assert.deepEqual(run([asked], { speculation, ...changes }).said, plain.said)
    }
    for (const each of [1, 3, 7]) {
      const more = { ...speculation, numSpeculativeTokens: each, promptLookupMax: each, promptLookupMin: 1 }
      assert.deepEqual(run([asked], { speculation: more }).said, plain.said)
    }
  })

  test(`${name}: with guesses, among others and short of blocks, the same`, () => {
    const asked = request('r', prompt, sampling)
    const plain = run([asked], {})
    assert.deepEqual(run([...crowd(10), asked, ...crowd(3, 11)], { speculation }).said, plain.said)
    const short = run([...crowd(14), asked], { speculation, numBlocks: 32, maxModelLen: 256 })
    assert.deepEqual(short.said.map(withoutCached), plain.said.map(withoutCached))
    assert.ok(short.stats.preemptions > 0)
  })

  test(`${name}: with guesses, cut anywhere and resumed, the same`, () => {
    const plain = finish(stories.engine(), [request('r', prompt, sampling)]).get('r')!
    const engine = stories.engine({ speculation })
    for (let cut = 0; cut < plain[0]!.length; cut += 3) {
      const resume = plain.map((ids, choice) => Uint32Array.from(ids.slice(0, Math.max(0, cut - 2 * choice))))
      const rest = finish(engine, [request('r', prompt, sampling, { resume })]).get('r')!
      assert.deepEqual(
        rest.map((ids, choice) => [...resume[choice]!, ...ids]),
        plain,
      )
    }
  })
}

function withoutCached(output: StepOutput): StepOutput {
  if (output.type !== 'token') return output
  const { cachedTokens: _, ...rest } = output
  return rest
}

test('beams are not guessed, and beside requests that are they end as alone', () => {
  const asked = request('r', prompt, { n: 3, maxTokens: 20, useBeamSearch: true })
  const plain = run([asked], {})
  assert.equal(plain.said.length, 60)
  assert.equal(run([asked], { speculation }).stats.drafts, 0)
  assert.deepEqual(run([...crowd(4), asked], { speculation }).said, plain.said)
})

test('a text that repeats itself takes fewer steps, and the counts add up', () => {
  const asked = request('r', prompt, samplings.greedy)
  const plain = run([asked], {}).stats
  const { steps, drafts, draftTokens, acceptedTokens } = run([asked], { speculation }).stats
  const accepted = acceptedTokens.reduce((sum, count) => sum + count, 0)
  assert.equal(plain.steps - steps, accepted)
  assert.ok(accepted > 10, `${accepted} of ${draftTokens} guesses were right`)
  assert.ok(drafts <= draftTokens && draftTokens <= 4 * drafts)
  assert.deepEqual(
    acceptedTokens.toSorted((a, b) => b - a),
    acceptedTokens,
  )
})

test('wrong guesses leave nothing behind in the prefix cache', () => {
  const engine = stories.engine({ speculation })
  const hot: Partial<Sampling> = { maxTokens: 80, ignoreEos: true, temperature: 0.8, seed: '3' }
  const first = finish(engine, [request('r', prompt, hot)]).get('r')![0]!
  const { draftTokens, acceptedTokens } = engine.stats()
  assert.ok(acceptedTokens.reduce((sum, count) => sum + count, 0) < draftTokens)
  // A second turn finds the blocks of the first, and goes on as an engine that computes them itself.
  const next = request('r', [...prompt, ...first], { maxTokens: 20, ignoreEos: true })
  const warm = finish(engine, [next])
  assert.ok(engine.stats().prefixHits >= prompt.length + first.length - 16)
  assert.deepEqual(warm, finish(stories.engine({ enablePrefixCaching: false }), [next]))
})

test('with more sequences than disable_by_batch_size nothing is guessed', () => {
  const few = { ...speculation, disableByBatchSize: 2 }
  const asked = (count: number) => range(count).map((i) => request(`${i}`, prompt, { maxTokens: 20, ignoreEos: true }))
  const drafts = (count: number) => {
    const engine = stories.engine({ speculation: few })
    finish(engine, asked(count))
    return engine.stats().drafts
  }
  assert.ok(drafts(2) > 0)
  assert.equal(drafts(3), 0)
})
