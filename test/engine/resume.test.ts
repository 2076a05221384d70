// Whatever a request asks for, cut anywhere: another engine goes on from the journal and ends with the same journal, byte
// for byte, of every choice: ids, text, log-probability records, what is withheld, and why it ended.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, test } from 'node:test'
import { OutputProcessor } from '../../engine/output/processor.ts'
import { Vocab } from '../../engine/output/vocab.ts'
import { decodeElement, encodeFinish, encodeToken } from '../../queue/event.ts'
import type { Sampling } from '../../queue/job.ts'
import { makeJob } from '../queue/jobs.ts'
import { golden, openStories } from './stories.ts'

const tokenizer = readFileSync(new URL('../fixtures/stories260K/tokenizer.json', import.meta.url), 'utf8')
const vocab = new Vocab(tokenizer)
const stories = await openStories()
after(() => stories.close())
const engine = stories.engine()
const prompt = Uint32Array.from(golden[0]!.ids)

/** Ids of the tokens that stand for single bytes. */
const byteIds = (...bytes: number[]) =>
  bytes.map((byte) => {
    const id = Array.from({ length: 512 }, (_, id) => id).find((id) => id > 2 && `${vocab.bytes(id)}` === `${byte}`)
    assert.ok(id !== undefined, `no token is byte ${byte}`)
    return id
  })

const plain: Sampling = { ...makeJob({ id: 'r', model: 'm' }).sampling, stop: [], maxTokens: 24 }
const seeded = { temperature: 0.9, topP: 0.95, seed: '1234' }

const requests: Record<string, Partial<Sampling>> = {
  greedy: {},
  seeded: { ...seeded, topK: 50, minP: 0.01 },
  penalties: { ...seeded, presencePenalty: 0.7, frequencyPenalty: 0.4, repetitionPenalty: 1.3, logitBias: [[300, 2]] },
  'four choices': { ...seeded, n: 4 },
  'log-probabilities': { ...seeded, n: 2, logprobs: 3 },
  'a stop string that is half met many times': { stop: ['a lit', 'was time, a pup', ' named Lily'] },
  'a stop string kept in the answer': { ...seeded, n: 3, stop: ['e w'], includeStopString: true, minTokens: 6 },
  'characters of several bytes, whole and broken': {
    ...seeded,
    temperature: 2,
    topP: 1,
    n: 2,
    allowedTokenIds: byteIds(0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0x41),
    stop: ['é€'],
    logprobs: 1,
  },
}

type Journal = string[][]

/** Runs the request after `journal` to its end, as the daemon does; returns the whole journal. */
function run(sampling: Sampling, journal: Journal): Journal {
  const processor = new OutputProcessor(vocab)
  const elements = journal.map((choice) => choice.map((element) => decodeElement(element)))
  const output = processor.add({ id: 'r', prompt, sampling }, elements)
  const resume = output.choices.map(({ tokens }) => Uint32Array.from(tokens, ({ id }) => id))
  if (!output.isFinished) engine.add({ id: 'r', prompt, sampling, resume, salt: '', adapter: 0, class: 0 })
  for (const [choice, { finish }] of output.choices.entries()) if (finish) engine.abort('r', choice)
  while (engine.hasWork) {
    const step = engine.step()
    const { stopped } = processor.process(step.filter((one) => one.type !== 'failed'))
    for (const { id, choice } of stopped) engine.abort(id, choice)
  }
  assert.ok(output.isFinished)
  engine.checkIntegrity()
  return output.choices.map(({ tokens, finish }) => [...tokens.map(encodeToken), encodeFinish(finish!)])
}

for (const [name, fields] of Object.entries(requests)) {
  const sampling = { ...plain, ...fields }
  test(`${name}: resumed from every cut the journal ends the same`, () => {
    const whole = run(sampling, [])
    const longest = Math.max(...whole.map(({ length }) => length))
    for (let cut = 0; cut <= longest; cut++) {
      // The choices were not equally far.
      const journal = whole.map((choice, i) => choice.slice(0, Math.max(0, cut - 2 * i)))
      assert.deepEqual(run(sampling, journal), whole, `cut at ${cut}`)
    }
  })
}

test('the requests above meet what they are about', () => {
  const textOf = (choice: string[]) => choice.map((element) => JSON.parse(element)[1]).join('')
  const [stopped] = run({ ...plain, ...requests['a stop string that is half met many times'] }, [])
  assert.equal(JSON.parse(stopped!.at(-1)!)[2], 'stop')
  assert.ok(
    stopped!.some((element) => JSON.parse(element)[1] === ''),
    'something was withheld',
  )
  const broken = run({ ...plain, ...requests['characters of several bytes, whole and broken'] }, [])
  assert.match(broken.map(textOf).join(''), /[À-ÿ]/)
  assert.ok(
    broken.flat().some((element) => JSON.parse(element)[1] === ''),
    'a character was cut',
  )
})
