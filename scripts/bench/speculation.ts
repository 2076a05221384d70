// What guessing tokens by prompt lookup brings where answers quote their prompt: the demo model is asked about documents
// that hold its answers word for word. Without and with guesses in turn, several rounds, so that a busy machine slows
// both; the texts must be the same.
//
//   node scripts/bench/speculation.ts [--streams 1] [--rounds 5] [--num-speculative-tokens 4] [--threads 1]
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import type { EngineStats } from '../../engine/engine.ts'
import { demoModel } from '../cli/configure.ts'
import { type Flag, parseFlags } from '../cli/flags.ts'
import { LLM, type Message, SamplingParams } from '../llm.ts'
import { percentile } from './report.ts'

const QUESTIONS = 32
const FACTS_PER_DOCUMENT = 4

const flags: Flag[] = [
  { name: '--streams', kind: 'integer', help: 'answers at the same time' },
  { name: '--rounds', kind: 'integer', help: 'of both' },
  { name: '--num-speculative-tokens', kind: 'integer', help: 'guesses per step' },
  { name: '--threads', kind: 'integer', help: 'of the kernels' },
]

/** Lines of "name ; other names = answer". */
function conversations(): Message[][] {
  const text = readFileSync(new URL('../demo/training/facts_concepts.txt', import.meta.url), 'utf8')
  const facts = text.split('\n').flatMap((line) => {
    const [names, answer] = line.split(' = ')
    return answer === undefined ? [] : [{ name: names!.split(';')[0]!.trim(), answer }]
  })
  return facts.slice(0, QUESTIONS).map(({ name }, i) => {
    const document = Array.from({ length: FACTS_PER_DOCUMENT }, (_, k) => facts[(i + k) % facts.length]!.answer)
    return [{ role: 'user', content: `${document.join('\n')}\n\nWhat is ${name}?` }]
  })
}

async function open(options: Record<string, unknown>) {
  let stats: EngineStats | null = null
  const llm = await LLM.create({ model: demoModel, ...options }, (engine) => {
    stats = engine.stats()
  })
  const params = new SamplingParams({ temperature: 0, max_tokens: 96 })
  const asked = conversations()
  const round = async () => {
    const begun = performance.now()
    const outputs = await llm.chat(asked, params, { use_tqdm: false })
    const seconds = (performance.now() - begun) / 1000
    const choices = outputs.map((output) => output.outputs[0])
    const tokens = choices.reduce((sum, { token_ids }) => sum + token_ids.length, 0)
    return { rate: tokens / seconds, texts: choices.map(({ text }) => text) }
  }
  return { round, stats: () => stats as EngineStats | null, close: () => llm.close() }
}

async function main(argv: string[]): Promise<void> {
  const { values } = parseFlags(flags, argv, {})
  const given = values as Record<string, number | undefined>
  const { streams = 1, rounds = 5, numSpeculativeTokens = 4, threads = 1 } = given
  const lookup = { num_speculative_tokens: numSpeculativeTokens, prompt_lookup_max: 4, prompt_lookup_min: 2 }
  const plain = await open({ max_num_seqs: streams, threads })
  const guessing = await open({ max_num_seqs: streams, threads, speculative_config: { method: 'ngram', ...lookup } })
  await plain.round()
  await guessing.round()
  const ratios: number[] = []
  for (let i = 0; i < rounds; i++) {
    const without = await plain.round()
    const with_ = await guessing.round()
    assert.deepEqual(with_.texts, without.texts, 'guesses changed an answer')
    ratios.push(with_.rate / without.rate)
    const [before, after] = [without.rate, with_.rate].map((rate) => rate.toFixed(0).padStart(6))
    console.log(`round ${i + 1}: ${before} tok/s without, ${after} with, ${ratios.at(-1)!.toFixed(2)} x`)
  }
  const { drafts, draftTokens, acceptedTokens } = guessing.stats()!
  const accepted = acceptedTokens.reduce((sum, count) => sum + count, 0)
  const median = percentile(
    ratios.toSorted((a, b) => a - b),
    50,
  )
  console.log(`${streams} streams, ${numSpeculativeTokens} guesses: ${median.toFixed(2)} x (median), texts identical`)
  console.log(
    `accepted ${accepted} of ${draftTokens} guesses (${((100 * accepted) / draftTokens).toFixed(1)} %), ` +
      `mean length ${(1 + accepted / drafts).toFixed(2)} tokens per guessing step`,
  )
  await plain.close()
  await guessing.close()
}

await main(process.argv.slice(2))
