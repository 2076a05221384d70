// Outputs of the engine to text, finishes and usage; and that a request resumed from any point of its journal yields
// what the uninterrupted one does.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { OutputProcessor, type SequenceOutput } from '../../../engine/output/processor.ts'
import { Vocab } from '../../../engine/output/vocab.ts'
import { decodeElement, type Element, encodeFinish, encodeToken } from '../../../queue/event.ts'
import type { Sampling } from '../../../queue/job.ts'
import { greedy } from '../scheduler/requests.ts'

const fixture = JSON.parse(readFileSync(new URL('../../fixtures/tokenizers/mistral_v1.json', import.meta.url), 'utf8'))
const vocab = new Vocab(JSON.stringify(fixture.tokenizer))
const EOS = 2

const sampling: Sampling = { ...greedy, maxTokens: 100 }

type End = { finish: 'stop' | 'length'; stopTokenId?: number }

/** What the engine would report for the ids, from `from` on; `end` marks the last. */
function sampled(ids: number[], choice = 0, from = 0, end?: End): SequenceOutput[] {
  if (end && from === ids.length) return [{ type: 'finish', id: 'r', choice, index: from, ...end }]
  return ids
    .map((token, index) => ({ token, index, ...(end && index === ids.length - 1 ? end : {}) }))
    .map((output) => ({ type: 'token' as const, id: 'r', choice, ...output }))
    .slice(from)
}

function start(options: Partial<Sampling>, journal: Element[][] = [], prompt: number[] = [1]) {
  const processor = new OutputProcessor(vocab)
  const request = { id: 'r', prompt: Uint32Array.from(prompt), sampling: { ...sampling, ...options } }
  return { processor, output: processor.add(request, journal) }
}

/** The choice as its journal, through the codec. */
function journalOf(output: ReturnType<typeof start>['output'], choice = 0): Element[] {
  const { tokens, finish } = output.choices[choice]!
  return [...tokens.map(encodeToken), ...(finish ? [encodeFinish(finish)] : [])].map((element) =>
    decodeElement(element),
  )
}

const text = (journal: Element[]) => journal.map((e) => ('token' in e ? e.token.text : e.finish.text)).join('')

test('end of sequence: its token is counted, its text is not part of the answer', () => {
  const { processor, output } = start({})
  const hello = [22557, 28725, 1526, 28808, EOS]
  processor.process(sampled(hello, 0, 0, { finish: 'stop' }))
  assert.equal(text(journalOf(output)), 'Hello, world!')
  assert.deepEqual(output.choices[0]?.finish, { text: '', reason: 'stop', stopReason: null })
  assert.deepEqual(output.usage, { promptTokens: 1, completionTokens: 5, cachedTokens: 0 })
  assert.ok(output.isFinished)
})

test('a stop token id is the stop reason; its text is kept only with include_stop_str_in_output', () => {
  for (const includeStopString of [false, true]) {
    const { processor, output } = start({ includeStopString })
    processor.process(sampled([22557, 28808], 0, 0, { finish: 'stop', stopTokenId: 28808 }))
    assert.equal(text(journalOf(output)), includeStopString ? 'Hello!' : 'Hello')
    assert.equal(output.choices[0]?.finish?.stopReason, 28808)
  }
})

test('a stop string ends the choice, asks the engine to stop it, and later tokens are dropped', () => {
  const { processor, output } = start({ stop: [', wor'] })
  const first = processor.process(sampled([22557, 28725, 1526]))
  assert.deepEqual(first.stopped, [{ id: 'r', choice: 0 }])
  assert.deepEqual(
    output.choices[0]?.tokens.map((token) => token.text),
    ['Hello', '', ''],
  )
  assert.deepEqual(output.choices[0]?.finish, { text: '', reason: 'stop', stopReason: ', wor' })
  assert.equal(processor.process(sampled([22557, 28725, 1526, 28808], 0, 3)).touched.size, 0)
  assert.equal(output.usage.completionTokens, 3)
})

test('a stop string completed by the last allowed token counts before the length', () => {
  const { processor, output } = start({ stop: ['world'], maxTokens: 3 })
  const { stopped } = processor.process(sampled([22557, 28725, 1526], 0, 0, { finish: 'length' }))
  assert.deepEqual(stopped, [])
  assert.equal(output.choices[0]?.finish?.stopReason, 'world')
})

test('withheld text and a character that was never completed come with the finish', () => {
  const { processor, output } = start({ stop: ['!!!'] })
  const e = 0xe2 + 3 // the byte tokens begin at id 3 in this vocabulary
  processor.process(sampled([22557, 28808, e], 0, 0, { finish: 'length' }))
  assert.deepEqual(output.choices[0]?.finish, { text: '!\ufffd', reason: 'length', stopReason: null })
})

test('log-probability records carry the bytes of their tokens', () => {
  const { processor, output } = start({ logprobs: 1 })
  const logprobs = [
    { id: 1526, logprob: -0.5, rank: 1 },
    { id: 28808, logprob: -2, rank: 2 },
  ]
  processor.process([{ type: 'token', id: 'r', choice: 0, token: 1526, index: 0, logprobs, cachedTokens: 1 }])
  assert.deepEqual(output.choices[0]?.tokens[0]?.logprobs, [
    { id: 1526, logprob: -0.5, rank: 1, bytes: [...Buffer.from(' world')] },
    { id: 28808, logprob: -2, rank: 2, bytes: [0x21] },
  ])
  assert.equal(output.usage.cachedTokens, 1)
})

test('a token out of order is a bug that is not passed on', () => {
  const { processor } = start({})
  assert.throws(
    () => processor.process([{ type: 'token', id: 'r', choice: 0, token: 5, index: 3 }]),
    /token 3 of r\/0 came where 0/,
  )
})

test('resumed from every cut of its journal, a request ends as the uninterrupted one', () => {
  const cases: { ids: number[] }[] = fixture.cases.filter((c: { skip: boolean }) => c.skip)
  const stops = [[], ['o', 'the'], ['ing ', '\n'], ['😀', ' a']]
  let cuts = 0
  for (const { ids } of cases.slice(0, 60)) {
    for (const stop of stops) {
      for (const end of [{ finish: 'length' }, { finish: 'stop' }] satisfies End[]) {
        const whole = start({ stop })
        whole.processor.process(sampled(ids, 0, 0, end))
        const journal = journalOf(whole.output)
        for (let cut = 0; cut <= journal.length; cut += 1 + (cut >> 3)) {
          // A stop token and the finish are one atomic append: no journal ends between them.
          if (cut === ids.length && end.finish === 'stop') continue
          const resumed = start({ stop }, [journal.slice(0, cut)])
          resumed.processor.process(sampled(ids, 0, cut, end))
          assert.deepEqual(journalOf(resumed.output), journal, `cut ${cut} of ${ids}`)
          assert.deepEqual(resumed.output.usage, whole.output.usage)
          cuts++
        }
      }
    }
  }
  assert.ok(cuts > 2000)
})

test('a resumed choice that its journal already finished stays finished; the others go on', () => {
  const done = start({ n: 2 })
  done.processor.process([...sampled([22557, EOS], 0, 0, { finish: 'stop' }), ...sampled([22557, 28725], 1)])
  const { processor, output } = start({ n: 2 }, [journalOf(done.output, 0), journalOf(done.output, 1)])
  assert.equal(output.isFinished, false)
  processor.process(sampled([22557, 28725, 1526], 1, 2, { finish: 'length' }))
  assert.ok(output.isFinished)
  assert.deepEqual(output.usage, { promptTokens: 1, completionTokens: 5, cachedTokens: 0 })
  assert.equal(text(journalOf(output, 1)), 'Hello, world')
})
