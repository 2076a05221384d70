import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SamplingParams } from '../../scripts/sampling-params.ts'

const resolve = (params: SamplingParams) => params.resolve({ seed: '7', room: 100 })

test('without options the defaults are those of vLLM', () => {
  const { temperature, topP, topK, maxTokens, n, seed, skipSpecialTokens } = resolve(new SamplingParams())
  assert.deepEqual([temperature, topP, topK, maxTokens, n, seed, skipSpecialTokens], [1, 1, 0, 16, 1, '7', true])
})

test('snake_case and camelCase say the same', () => {
  const snake = new SamplingParams({
    temperature: 0.8,
    top_p: 0.95,
    top_k: -1,
    max_tokens: 32,
    stop: 'END',
    include_stop_str_in_output: true,
    logit_bias: { 5: -100 },
    seed: 2n ** 60n,
  })
  const camel = new SamplingParams({
    temperature: 0.8,
    topP: 0.95,
    topK: 0,
    maxTokens: 32,
    stop: ['END'],
    includeStopStrInOutput: true,
    logitBias: { 5: -100 },
    seed: 2n ** 60n,
  })
  assert.deepEqual(resolve(snake), resolve(camel))
  assert.equal(resolve(snake).seed, '1152921504606846976')
  assert.deepEqual(resolve(snake).logitBias, [[5, -100]])
})

test('max_tokens null is as many as fit', () => {
  assert.equal(resolve(new SamplingParams({ max_tokens: null })).maxTokens, 100)
})

test('a bad or unknown parameter is refused under the name it was given', () => {
  assert.throws(() => new SamplingParams({ top_p: 2 }), /^TypeError: SamplingParams: top_p: /)
  assert.throws(() => new SamplingParams({ topP: 0 }), /^TypeError: SamplingParams: topP: /)
  assert.throws(
    () => new SamplingParams({ temprature: 1 } as object),
    /temprature is not known; known are n, max_tokens/,
  )
})
