// LLM.generate on a real model (stories260K, test/fixtures): the golden texts, alone and in company.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { LLM, type Message, SamplingParams } from '../../scripts/llm.ts'

const model = fileURLToPath(new URL('../fixtures/stories260K', import.meta.url))

const demo = fileURLToPath(new URL('../../scripts/demo/model', import.meta.url))

type Golden = { prompt: string; ids: number[]; greedy: number[]; full_text: string; finish: string }
const { prompts: goldens } = JSON.parse(readFileSync(`${model}/golden.json`, 'utf8')) as { prompts: Golden[] }
const quiet = { use_tqdm: false }

describe('LLM on stories260K', () => {
  let llm: LLM
  before(async () => {
    llm = await LLM.create({ model, dtype: 'float32', max_num_seqs: 16, max_num_batched_tokens: 256 })
  })
  after(() => llm.close())

  const greedy = (options = {}) => new SamplingParams({ temperature: 0, max_tokens: 128, ...options })

  test('the golden texts, exactly, in the order of the prompts', async () => {
    const outputs = await llm.generate(
      goldens.map(({ prompt }) => prompt),
      greedy(),
      quiet,
    )
    for (const [i, golden] of goldens.entries()) {
      const { prompt, prompt_token_ids, outputs: choices } = outputs[i]!
      assert.equal(prompt, golden.prompt)
      assert.deepEqual(prompt_token_ids, golden.ids)
      assert.deepEqual(choices[0].token_ids, golden.greedy)
      assert.equal(prompt + choices[0].text, golden.full_text)
    }
  })

  test('a prompt alone, among others, and with a warm cache gives the same', async () => {
    const params = new SamplingParams({ temperature: 0.9, top_p: 0.95, seed: 5, max_tokens: 40 })
    const [alone] = await llm.generate('One day, a little boy named Tim', params, quiet)
    const crowd = Array.from({ length: 20 }, (_, i) => goldens[i % goldens.length]!.prompt)
    crowd[7] = 'One day, a little boy named Tim'
    const among = await llm.generate(crowd, params, quiet)
    assert.deepEqual(among[7]!.outputs[0].token_ids, alone!.outputs[0].token_ids)
  })

  test('without a seed every prompt has its own, the same in every run', async () => {
    const params = new SamplingParams({ temperature: 1, max_tokens: 20, n: 2 })
    const texts = (await llm.generate(['Once', 'Once'], params, quiet)).flatMap(({ outputs }) =>
      outputs.map(({ text }) => text),
    )
    assert.equal(new Set(texts).size, 4)
  })

  test('stop strings, log-probabilities and finish reasons', async () => {
    const [stopped] = await llm.generate('Once upon a time', greedy({ stop: [' Lily'], logprobs: 2 }), quiet)
    const [choice] = stopped!.outputs
    assert.equal(choice.text, ', there was a little girl named')
    assert.equal(choice.finish_reason, 'stop')
    assert.equal(choice.stop_reason, ' Lily')
    assert.equal(choice.logprobs?.length, choice.token_ids.length)
    const first = choice.logprobs![0]!
    assert.equal(Object.keys(first).length, 2)
    assert.equal(first[choice.token_ids[0]!]?.rank, 1)
    const sum = choice.logprobs!.reduce((total, records, i) => total + records[choice.token_ids[i]!]!.logprob, 0)
    assert.equal(choice.cumulative_logprob, sum)
    const [long] = await llm.generate({ prompt_token_ids: [1] }, greedy({ max_tokens: 3 }), quiet)
    assert.equal(long!.outputs[0].finish_reason, 'length')
    assert.equal(long!.outputs[0].token_ids.length, 3)
    assert.equal(long!.prompt, null)
  })

  test('bad words never appear, neither at the beginning of a text nor after a space', async () => {
    const plain = (await llm.generate('Once upon a time', greedy(), quiet))[0]!.outputs[0].text
    assert.match(plain, / Lily/)
    const params = greedy({ bad_words: ['Lily', 'little girl'] })
    const [forbidden] = await llm.generate('Once upon a time', params, quiet)
    assert.doesNotMatch(forbidden!.outputs[0].text, /Lily|little girl/)
    assert.match(forbidden!.outputs[0].text, /girl|little/)
    assert.throws(() => greedy({ bad_words: [''] }), /SamplingParams: bad_words: must be an array of strings/)
  })

  test('log-probabilities of a prompt are those its tokens had when they were generated', async () => {
    const [told] = await llm.generate('Once upon a time', greedy({ max_tokens: 30, logprobs: 2 }), quiet)
    const { token_ids, logprobs } = told!.outputs[0]
    const ids = [...told!.prompt_token_ids, ...token_ids]
    const [scored] = await llm.generate({ prompt_token_ids: ids }, greedy({ max_tokens: 1, prompt_logprobs: 2 }), quiet)
    assert.equal(scored!.prompt_logprobs!.length, ids.length)
    assert.equal(scored!.prompt_logprobs![0], null)
    assert.deepEqual(scored!.prompt_logprobs!.slice(told!.prompt_token_ids.length), logprobs)
    assert.equal(told!.prompt_logprobs, null)
  })

  test('a prompt that does not fit is refused by its number; the LLM goes on', async () => {
    const long = { prompt_token_ids: new Array(600).fill(5) }
    await assert.rejects(llm.generate(['Once', long], greedy(), quiet), /^Error: prompt 1: /)
    assert.equal((await llm.generate('Once', greedy({ max_tokens: 2 }), quiet))[0]!.outputs[0].token_ids.length, 2)
  })

  test('as many parameters as prompts, or one', async () => {
    await assert.rejects(
      llm.generate(['a', 'b'], [greedy()], quiet),
      /2 prompts need as many SamplingParams or one; there are 1/,
    )
  })

  test('beam search gives answers at least as likely as the greedy one, the best first', async () => {
    const options = { max_tokens: 20, ignore_eos: true, logprobs: 0 }
    const prompt = goldens[0]!.prompt
    const [best] = await llm.generate(prompt, new SamplingParams({ ...options, n: 4, use_beam_search: true }), quiet)
    const [sampled] = await llm.generate(prompt, greedy(options), quiet)
    const [first, ...others] = best!.outputs.map((output) => output.cumulative_logprob!)
    assert.ok(first! >= sampled!.outputs[0].cumulative_logprob!)
    assert.deepEqual(
      [first!, ...others],
      [first!, ...others].toSorted((a, b) => b - a),
    )
    assert.equal(new Set(best!.outputs.map(({ text }) => text)).size, 4)
  })
})

test('conversations and texts of several calls share the batch and give the golden answers of the demo model', async () => {
  type Case = { messages?: Message[]; tools?: unknown[]; prompt: string; prompt_ids: number[]; text: string }
  const { cases } = JSON.parse(readFileSync(`${demo}/golden.json`, 'utf8')) as { cases: Case[] }
  assert.ok(cases.length > 10)
  const llm = new LLM({ model: demo, maxNumSeqs: 16 })
  const params = new SamplingParams({ temperature: 0, max_tokens: 64 })
  const outputs = await Promise.all(
    cases.map(({ messages, tools, prompt }) =>
      messages
        ? llm.chat(messages, params, { ...quiet, ...(tools && { tools }) })
        : llm.generate(prompt, params, quiet),
    ),
  )
  for (const [i, golden] of cases.entries()) {
    assert.deepEqual(outputs[i]![0]!.prompt_token_ids, golden.prompt_ids)
    assert.equal(outputs[i]![0]!.outputs[0].text, golden.text)
  }
  await llm.close()
})

test('with guesses every text, log-probability and reason is what it is without', async () => {
  const { cases } = JSON.parse(readFileSync(`${demo}/golden.json`, 'utf8')) as { cases: { prompt_ids: number[] }[] }
  const prompts = cases.map(({ prompt_ids }) => ({ prompt_token_ids: prompt_ids }))
  const params = [
    { temperature: 0 },
    { temperature: 0.7, seed: 3, n: 2, logprobs: 2 },
    { temperature: 0, stop: ['.', ' the'], include_stop_str_in_output: true },
    { temperature: 0.4, seed: 1, stop: ['ing'], repetition_penalty: 1.1, bad_words: ['a', 'memory'], min_tokens: 20 },
  ].map((options) => new SamplingParams({ max_tokens: 48, ...options }))
  const texts = async (options: object) => {
    const llm = await LLM.create({ model: demo, max_num_seqs: 16, ...options })
    const outputs = await Promise.all(params.map((each) => llm.generate(prompts, each, quiet)))
    await llm.close()
    return outputs.flat().map((output) => output.outputs)
  }
  const speculative_config = { method: 'ngram', num_speculative_tokens: 4, prompt_lookup_max: 3, prompt_lookup_min: 1 }
  assert.deepEqual(await texts({ speculative_config }), await texts({}))
})

test('int8 weights and cache: the same alone, among others and with other threads and instructions', async () => {
  const options = { model, quantization: 'int8', kv_cache_dtype: 'int8_per_token_head' } as const
  const prompts = goldens.map(({ prompt }) => prompt)
  const texts = async (extra: object, run: (llm: LLM) => Promise<string[]>) => {
    const llm = await LLM.create({ ...options, ...extra })
    return run(llm).finally(() => llm.close())
  }
  const params = new SamplingParams({ temperature: 0, max_tokens: 40 })
  const textOf = async (llm: LLM, asked: string[]) =>
    (await llm.generate(asked, params, quiet)).map(({ outputs: [best] }) => best.text)
  const together = await texts({}, (llm) => textOf(llm, prompts))
  const alone = await texts({ threads: 1, isa: 'plain', max_num_batched_tokens: 8, max_num_seqs: 8 }, async (llm) => {
    const each: string[] = []
    for (const prompt of prompts) each.push(...(await textOf(llm, [prompt])))
    return each
  })
  assert.deepEqual(alone, together)
  assert.ok(together.every((text) => text.length > 20))
})

test('a model that is not there, or an option that is not known, is one clear line', async () => {
  await assert.rejects(new LLM({ model: './nowhere' }).generate('x'), /nowhere/)
  assert.throws(() => new LLM({ model: './x', max_model_lenn: 5 }), /unknown option --max-model-lenn/)
})
