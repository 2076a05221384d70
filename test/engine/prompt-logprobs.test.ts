// Log-probabilities of a prompt: the same bits however the prompt was cut, cached or preempted, once per request, and
// with the first token of every choice on its way to the journal.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Engine, EngineOptions, StepOutput } from '../../engine/engine.ts'
import { OutputProcessor } from '../../engine/output/processor.ts'
import { Vocab } from '../../engine/output/vocab.ts'
import { decodeElement, encodeToken } from '../../queue/event.ts'
import type { Sampling } from '../../queue/job.ts'
import { LETTERS } from '../doubles/engine.ts'
import { range, request } from './scheduler/requests.ts'
import { drain, golden, openStories, type Stories } from './stories.ts'

let stories: Stories
before(async () => {
  stories = await openStories()
})
after(() => stories.close())

const prompt = [...golden[3]!.ids, ...golden[3]!.greedy.slice(0, 36)]
const scored = (sampling: Partial<Sampling> = {}) =>
  request('r', prompt, { maxTokens: 3, ignoreEos: true, promptLogprobs: 2, ...sampling })

/** Records by index, from however many outputs, which must come in order and before the first token. */
function recordsOf(outputs: StepOutput[]): unknown[] {
  const records: unknown[] = []
  let tokens = 0
  for (const output of outputs) {
    if (output.id !== 'r') continue
    if (output.type === 'token') tokens++
    if (output.type !== 'prompt') continue
    assert.equal(output.from, records.length + 1)
    assert.equal(tokens, 0)
    records.push(...output.logprobs)
  }
  return records
}

function run(engine: Engine, sampling: Partial<Sampling> = {}): unknown[] {
  engine.add(scored(sampling))
  return recordsOf(drain(engine))
}

test('every token of the prompt but the first is scored with its raw log-probability', () => {
  const engine = stories.engine()
  const records = run(engine) as { id: number; logprob: number; rank: number }[][]
  assert.deepEqual(
    records.map(([own]) => own!.id),
    prompt.slice(1),
  )
  for (const [own, first, second] of records) {
    assert.ok(first!.rank === 1 && second!.rank === 2 && first!.logprob >= second!.logprob)
    if (own!.rank <= 2) assert.deepEqual(own, [first, second][own!.rank - 1])
  }
  // What is sampled with temperature and penalties is scored without them.
  const hot = run(stories.engine(), { temperature: 2, repetitionPenalty: 2, logprobs: null })
  assert.deepEqual(hot, records)
})

test('whole, in chunks, from a warm cache, among others or preempted: the same records', () => {
  const expected = run(stories.engine())
  const chunks: Partial<EngineOptions>[] = [7, 16, 33].map((maxNumBatchedTokens) => ({
    maxNumBatchedTokens,
    maxNumSeqs: 4,
  }))
  for (const changes of [...chunks, { longPrefillTokenThreshold: 5 }]) {
    assert.deepEqual(run(stories.engine(changes)), expected)
  }
  const warm = stories.engine()
  for (const _ of range(3)) assert.deepEqual(run(warm), expected)

  let preemptions = 0
  for (const wait of range(20)) {
    const engine = stories.engine({ numBlocks: 18, maxModelLen: 128, maxNumBatchedTokens: 24, maxNumSeqs: 8 })
    const outputs: StepOutput[] = []
    for (const i of range(4)) engine.add(request(`${i}`, [i, ...range(30)], { maxTokens: 40, ignoreEos: true }))
    for (const _ of range(wait)) outputs.push(...engine.step())
    engine.add({ ...scored(), class: 5 })
    outputs.push(...drain(engine))
    assert.deepEqual(recordsOf(outputs), expected)
    preemptions += engine.stats().preemptions
  }
  assert.ok(preemptions > 0)
})

test('more rows than logits are taken at a time', () => {
  const long = range(200, 3)
  const engine = stories.engine()
  engine.add(request('r', long, { maxTokens: 1, promptLogprobs: 0 }))
  for (const i of range(20)) engine.add(request(`${i}`, [i], { maxTokens: 5 }))
  const records = recordsOf(drain(engine)) as { id: number }[][]
  assert.deepEqual(
    records.map(([own]) => own!.id),
    long.slice(1),
  )
})

test('a beam search scores its prompt once', () => {
  const beams = run(stories.engine(), { n: 3, maxTokens: 8, useBeamSearch: true })
  assert.deepEqual(beams, run(stories.engine()))
})

test('choices share one scoring; a resume that has the first token repeats none', () => {
  assert.equal(run(stories.engine(), { n: 3 }).length, prompt.length - 1)
  const engine = stories.engine()
  engine.add({ ...scored({ n: 2 }), resume: [Uint32Array.of(5), Uint32Array.of()] })
  assert.deepEqual(recordsOf(drain(engine)), [])
})

test('the first token of every choice carries the records, also after a resume from the journal', () => {
  const vocab = new Vocab(
    JSON.stringify({
      model: { type: 'BPE', vocab: Object.fromEntries([...LETTERS].map((letter, id) => [letter, id])) },
      decoder: { type: 'ByteLevel' },
    }),
  )
  const { sampling } = request('r', [], { n: 2, promptLogprobs: 0 })
  const asked = { id: 'r', prompt: Uint32Array.of(0, 1, 2), sampling }
  const processor = new OutputProcessor(vocab)
  const output = processor.add(asked)
  const token = (choice: number, index = 0) => ({ type: 'token' as const, id: 'r', choice, token: 3, index })
  const record = (id: number) => ({ id, logprob: -id, rank: id })
  processor.process([{ type: 'prompt', id: 'r', from: 1, logprobs: [[record(1)]] }])
  processor.process([{ type: 'prompt', id: 'r', from: 2, logprobs: [[record(2)]] }, token(0), token(0, 1)])
  const bytes = (id: number) => [LETTERS.charCodeAt(id)]
  const expected = [
    [{ id: 0, logprob: 0, rank: 0, bytes: bytes(0) }],
    [{ ...record(1), bytes: bytes(1) }],
    [{ ...record(2), bytes: bytes(2) }],
  ]
  assert.deepEqual(output.choices[0]!.tokens[0]!.prompt, expected)
  assert.equal(output.choices[0]!.tokens[1]!.prompt, undefined)

  const journal = [output.choices[0]!.tokens.map((each) => decodeElement(encodeToken(each))), []]
  const resumed = new OutputProcessor(vocab)
  const second = resumed.add(asked, journal)
  resumed.process([token(1)])
  assert.deepEqual(second.choices[1]!.tokens[0]!.prompt, expected)
})
