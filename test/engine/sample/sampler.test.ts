// The sampler over logits that the test wrote: what a request asks for reaches the kernel, row by row.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { Device } from '../../../engine/native/device.ts'
import { Commands } from '../../../engine/native/ops.ts'
import { Sampler } from '../../../engine/sample/sampler.ts'
import { Sequence } from '../../../engine/scheduler/sequence.ts'
import type { Sampling } from '../../../queue/job.ts'
import { dice, request } from '../scheduler/requests.ts'

const vocabularySize = 50
const device = Device.open({ backend: 'cpu', threads: 1 })
const commands = new Commands(device)
const sampler = new Sampler(device, { vocabularySize, eosTokenIds: [2] })
after(() => {
  sampler.free()
  device.close()
})

type Row = {
  logits?: number[]
  prompt?: number[]
  output?: number[]
  draft?: number[]
  choice?: number
  sampling?: Partial<Sampling>
}

/** Logits that fall from token 0 on: 5, 4.9, 4.8, ... */
const falling = Array.from({ length: vocabularySize }, (_, i) => 5 - i / 10)

function sample(rows: Row[]) {
  const logits = device.alloc([rows.length, vocabularySize], 'f32')
  logits.write(Float32Array.from(rows.flatMap((row) => row.logits ?? falling)))
  const wanted = rows.map(({ prompt = [9], output = [], choice = 0, draft = [], sampling = {} }, row) => {
    const resume: Uint32Array[] = []
    resume[choice] = Uint32Array.from(output)
    return { sequence: new Sequence(request('r', prompt, sampling, { resume }), choice, 0), row, draft, scored: null }
  })
  commands.reset()
  sampler.pack(wanted)
  sampler.append(commands, logits, 0)
  commands.run()
  const { tokens, logprobs } = sampler.read()
  logits.free()
  return { tokens: [...tokens], logprobs }
}

test('greedy takes the largest logit', () => {
  assert.deepEqual(sample([{}, { logits: falling.toReversed() }]).tokens, [0, 49])
})

test('logit_bias, allowed tokens and min_tokens act on their own row only', () => {
  const rows: Row[] = [
    {},
    { sampling: { logitBias: [[7, 10]] } },
    { sampling: { allowedTokenIds: [40, 33, 45] } },
    { sampling: { minTokens: 2, stopTokenIds: [0, 1] }, output: [5] },
    { sampling: { minTokens: 2, stopTokenIds: [0, 1] }, output: [5, 5] },
    { sampling: { logitBias: [[0, -100]], allowedTokenIds: [0, 12] } },
  ]
  assert.deepEqual(sample(rows).tokens, [0, 7, 33, 3, 0, 12])
})

test('the last token of bad words is forbidden where the others stand, in the output alone', () => {
  const badWords = [[0], [4, 5, 1], [6, 2]]
  const rows: Row[] = [
    { sampling: { badWords } },
    { output: [4, 5], sampling: { badWords } },
    { prompt: [9, 4], output: [5], sampling: { badWords } },
    { prompt: [4, 5], sampling: { badWords } },
    { output: [4, 5, 5], sampling: { badWords } },
    { output: [4], draft: [5], sampling: { badWords } },
    { output: [1, 6], sampling: { badWords, logitBias: [[2, 50]] } },
  ]
  assert.deepEqual(sample(rows).tokens, [1, 2, 1, 1, 1, 2, 1])
})

test('a row behind guesses draws as if they were its output', () => {
  const sampling = { temperature: 5, seed: '-7', repetitionPenalty: 1.5, frequencyPenalty: 0.5 }
  const hot = { ...sampling, minTokens: 4, stopTokenIds: [0, 1, 3] }
  for (const each of [sampling, hot]) {
    const whole = sample([{ output: [3, 7, 7, 11, 4], sampling: each }]).tokens
    for (const known of [0, 1, 4]) {
      const draft = [3, 7, 7, 11, 4].slice(known)
      assert.deepEqual(sample([{ output: [3, 7, 7, 11, 4].slice(0, known), draft, sampling: each }]).tokens, whole)
    }
  }
})

test('penalties look at the tokens of their own sequence', () => {
  const rows: Row[] = [
    { prompt: [0], sampling: { repetitionPenalty: 3 } },
    { prompt: [0], sampling: { presencePenalty: 2 } },
    { prompt: [9], output: [0], sampling: { presencePenalty: 2 } },
    { prompt: [9], output: [0, 0, 1], sampling: { frequencyPenalty: 0.08 } },
    {},
  ]
  // Repetition counts the prompt, presence and frequency the output only.
  assert.deepEqual(sample(rows).tokens, [1, 0, 1, 0, 0])
  assert.deepEqual(sample([{ ...rows[3], sampling: { frequencyPenalty: 0.11 } }]).tokens, [2])
})

test('what a row draws depends on seed, choice and position, not on its prompt or its place in the batch', () => {
  const hot = { temperature: 5, seed: '-7' }
  const rows = Array.from({ length: 150 }, (_, i) => ({
    choice: i % 4,
    output: new Array<number>(Math.floor(i / 4)).fill(8),
    sampling: i < 20 ? hot : { ...hot, topP: 0.9 },
  }))
  const together = sample(rows).tokens
  assert.ok(new Set(together).size > 30)
  for (const [i, row] of rows.entries()) assert.equal(sample([{ ...row, prompt: [3, 4, 5] }]).tokens[0], together[i])
  const other = sample(rows.map((row) => ({ ...row, sampling: { ...row.sampling, seed: '8' } }))).tokens
  assert.ok(other.filter((token, i) => token === together[i]).length < 30)
})

test('top_k, top_p and min_p keep to the head of the distribution', () => {
  const seeds = Array.from({ length: 50 }, (_, i) => `${i}`)
  for (const [limit, cut] of [
    [2, { topK: 3 }],
    [9, { topP: 0.3 }],
    [4, { minP: 0.95, temperature: 8 }],
  ] as const) {
    const { tokens } = sample(seeds.map((seed) => ({ sampling: { temperature: 1, seed, ...cut } })))
    assert.ok(Math.max(...tokens) <= limit, `${JSON.stringify(cut)} gave ${tokens}`)
    assert.ok(new Set(tokens).size > 1)
  }
})

test('log-probabilities are those of the raw logits, with the sampled token and its rank first', () => {
  const roll = dice(3)
  const logits = Array.from({ length: vocabularySize }, () => roll(1000) / 100)
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0)
  const ranked = logits.map((logit, id) => ({ id, logit })).sort((a, b) => b.logit - a.logit || a.id - b.id)
  const forced = ranked[6]!.id
  const { tokens, logprobs } = sample([
    { logits, sampling: { logprobs: 2, allowedTokenIds: [forced], repetitionPenalty: 2, temperature: 0.5 } },
    { logits },
    { logits, sampling: { logprobs: 0 } },
    { logits, sampling: { logprobs: 5 } },
  ])
  assert.equal(tokens[0], forced)
  const record = (index: number) => ({
    id: ranked[index]!.id,
    rank: index + 1,
    logprob: ranked[index]!.logit - Math.log(total),
  })
  const expected = [[6, 0, 1], null, [0], [0, 0, 1, 2, 3, 4]]
  for (const [row, indices] of expected.entries()) {
    const records = logprobs[row]
    if (!indices) {
      assert.equal(records, undefined)
      continue
    }
    assert.equal(records!.length, indices.length)
    for (const [i, index] of indices.entries()) {
      const { logprob, ...rest } = record(index)
      assert.ok(Math.abs(records![i]!.logprob - logprob) < 1e-4)
      assert.deepEqual({ id: records![i]!.id, rank: records![i]!.rank }, rest)
    }
  }
  assert.deepEqual(sample([{}]).logprobs, [])
})
