import assert from 'node:assert/strict'
import { test } from 'node:test'
import { makeRecipe } from '../../../engine/sample/recipe.ts'
import type { Sampling } from '../../../queue/job.ts'
import { greedy } from '../scheduler/requests.ts'

const recipe = (sampling: Partial<Sampling>) =>
  makeRecipe({ ...greedy, ...sampling }, { vocabularySize: 70, eosTokenIds: [2, 3] })

test('a seed of any int64 becomes the words of its two’s complement', () => {
  const words = (seed: string) => {
    const { seedLow, seedHigh } = recipe({ seed })
    return [seedLow, seedHigh]
  }
  assert.deepEqual(words('0'), [0, 0])
  assert.deepEqual(words('-1'), [0xffffffff, 0xffffffff])
  assert.deepEqual(words('9223372036854775807'), [0xffffffff, 0x7fffffff])
  assert.deepEqual(words('-9223372036854775808'), [0, 0x80000000])
  assert.deepEqual(words('9007199254740993'), [1, 0x200000])
})

test('min_tokens forbids end of sequence and stop tokens, and only until then', () => {
  const { bias, earlyBias } = recipe({ minTokens: 3, stopTokenIds: [7, 2, 900], logitBias: [[5, 1.5]] })
  assert.deepEqual(bias, { ids: [5], values: [1.5] })
  const forbidden = Number.NEGATIVE_INFINITY
  assert.deepEqual(earlyBias, { ids: [5, 2, 3, 7], values: [1.5, forbidden, forbidden, forbidden] })
})

test('allowed tokens become one bit each, over all words of the vocabulary', () => {
  const { allowed } = recipe({ allowedTokenIds: [0, 31, 33, 69] })
  assert.deepEqual([...allowed!], [1 | (1 << 31) | 0, 2, 1 << 5])
  assert.equal(recipe({}).allowed, null)
})

test('neutral penalties need no history', () => {
  assert.equal(recipe({}).hasPenalties, false)
  for (const each of [{ repetitionPenalty: 1.1 }, { frequencyPenalty: -1 }, { presencePenalty: 0.5 }]) {
    assert.equal(recipe(each).hasPenalties, true)
  }
})

test('what the vocabulary cannot honour is refused by name', () => {
  assert.throws(() => recipe({ logitBias: [[70, 1]] }), /logit_bias: token 70; the vocabulary has 70/)
  assert.throws(() => recipe({ allowedTokenIds: [1, 99] }), /allowed_token_ids: token 99/)
  assert.throws(() => recipe({ allowedTokenIds: [] }), /allowed_token_ids: empty/)
  assert.throws(() => recipe({ allowedTokenIds: [2, 5], stopTokenIds: [5], minTokens: 1 }), /only tokens that end/)
  assert.throws(() => recipe({ badWords: [[1], [2, 70]] }), /bad_words: token 70/)
  assert.throws(() => recipe({ promptLogprobs: 71 }), /prompt_logprobs: 71; the vocabulary has 70 tokens/)
  assert.throws(() => recipe({ logprobs: 71 }), /logprobs: 71; the vocabulary has 70 tokens/)
})
