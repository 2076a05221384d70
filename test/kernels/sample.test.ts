import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { assertClose, isas, numbers, open } from './devices.ts'
import { philox, race } from './philox.ts'
import { type Request, sample } from './sampling.ts'

type Golden = {
  inputs: { logits: number[]; context: number[] }[]
  cases: { case: number; params: string; kept: number[] | 'all'; probs: number[] }[]
}
const golden: Golden = JSON.parse(readFileSync(new URL('../fixtures/golden/sampling.json', import.meta.url), 'utf8'))

/** What the names in the golden file stand for. The context is output: that is what OpenAI's formula penalizes. */
const recipes: Record<string, (output: number[]) => Partial<Request>> = {
  'temperature_0.7': () => ({ temperature: 0.7 }),
  top_k_5: () => ({ topK: 5 }),
  'top_p_0.9': () => ({ topP: 0.9 }),
  'min_p_0.1': () => ({ minP: 0.1 }),
  'rep_1.3': (output) => ({ repetition: 1.3, output }),
  't0.8_k20_p0.95': () => ({ temperature: 0.8, topK: 20, topP: 0.95 }),
  't1.2_minp0.05': () => ({ temperature: 1.2, minP: 0.05 }),
  'rep1.1_t1.5_p0.5': (output) => ({ repetition: 1.1, temperature: 1.5, topP: 0.5, output }),
  'presence0.6_frequency0.4': (output) => ({ presence: 0.6, frequency: 0.4, output }),
  ngram_2: (output) => ({ bias: repeatedBigrams(output) }),
}

/** no_repeat_ngram_size 2 as a bias: whatever followed the last token before may not follow again. */
function repeatedBigrams(output: number[]): [number, number][] {
  const followers = output.slice(1).filter((_, i) => output[i] === output.at(-1))
  return followers.map((id) => [id, Number.NEGATIVE_INFINITY])
}

test('Philox in this test gives the vectors of Random123', () => {
  const hex = (words: number[]) => words.map((word) => word.toString(16).padStart(8, '0')).join(' ')
  const ones = 0xffffffff
  assert.equal(hex(philox([0, 0, 0, 0], [0, 0])), '6627e8d5 e169c58d bc57ac4c 9b00dbd8')
  assert.equal(hex(philox([ones, ones, ones, ones], [ones, ones])), '408f276d 41c83b0e a20bc7c6 6d5451fd')
  const pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344]
  assert.equal(hex(philox(pi, [0xa4093822, 0x299f31d0])), 'd16cfe09 94fdcceb 5001e420 24126ea1')
})

for (const isa of isas) {
  test(`${isa}: kept tokens and their probabilities are those of Hugging Face`, () => {
    const device = open(isa)
    assert.equal(golden.cases.length, 120)
    for (const { case: index, params, kept, probs } of golden.cases) {
      const { logits, context } = golden.inputs[index]!
      const [result] = sample(device, [{ logits, ...recipes[params]!(context) }])
      const ids = [...result!.kept.keys()].sort((a, b) => a - b)
      assert.deepEqual(ids, kept === 'all' ? [...logits.keys()] : kept, `case ${index} ${params}`)
      const actual = ids.map((id) => result!.kept.get(id)!)
      assertClose(actual, probs, 1e-6, `case ${index} ${params}`)
    }
  })

  test(`${isa}: the token is the winner of the race over Philox`, () => {
    const device = open(isa)
    const logits = numbers(103, 8, 4)
    const requests = Array.from({ length: 300 }, (_, i) => ({
      logits,
      seed: [(i * 0x9e3779b9) | 0, i % 3 === 0 ? -1 : i] as const,
      choice: i % 4,
      position: i * 17,
      topK: i % 2 === 0 ? 0 : 30,
    }))
    sample(device, requests).forEach(({ token, kept }, i) => {
      const { seed, choice, position } = requests[i]!
      const unsigned = [seed[0] >>> 0, seed[1] >>> 0] as const
      assert.equal(token, race(kept, { seed: unsigned, choice, position }), `request ${i}`)
    })
  })

  test(`${isa}: a row draws the same token alone and among others`, () => {
    const requests = Array.from({ length: 9 }, (_, i) => ({ logits: numbers(1000, i, 3), seed: [i, 0] as const }))
    const together = sample(open(isa, 3), requests)
    requests.forEach((request, i) => {
      assert.deepEqual(sample(open(isa, 1), [request])[0], together[i])
    })
  })
}

test('draws follow the probabilities: chi-square over 20,000 positions', () => {
  const device = open(isas.at(-1)!)
  const logits = [0, 1, 2, -1, 0.5, -3, 1.5, 0.2]
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0)
  const draws = 20_000
  const counts = new Array<number>(logits.length).fill(0)
  const requests = Array.from({ length: draws }, (_, position) => ({ logits, position, seed: [7, 7] as const }))
  for (const { token } of sample(device, requests)) counts[token]!++
  const chiSquare = logits.reduce((sum, logit, id) => {
    const expected = (draws * Math.exp(logit)) / total
    return sum + (counts[id]! - expected) ** 2 / expected
  }, 0)
  // 7 degrees of freedom: 24.3 is passed once in a thousand seeds; the seed is fixed.
  assert.ok(chiSquare < 24.3, `chi-square ${chiSquare}`)
})

test('top-p over a large, flat vocabulary keeps exactly the heaviest', () => {
  const logits = numbers(5000, 3)
  const order = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]!)
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0)
  let [before, count] = [0, 0]
  while (before < 0.6 * total) before += Math.exp(logits[order[count++]!]!)
  const { kept } = sample(open(isas.at(-1)!), [{ logits, topP: 0.6 }])[0]!
  assert.deepEqual(new Set(kept.keys()), new Set(order.slice(0, count)))
})

test('top-k over a large vocabulary keeps the k highest and those equal to the last of them', () => {
  const device = open(isas.at(-1)!)
  for (const k of [1, 20, 77, 78, 4999]) {
    const logits = numbers(5000, k, 9).map((logit) => Math.round(logit * 64) / 64)
    const least = logits.toSorted().at(-k)!
    const expected = Array.from(logits.keys()).filter((id) => logits[id]! >= least)
    const { kept } = sample(device, [{ logits, topK: k }])[0]!
    assert.deepEqual(
      [...kept.keys()].sort((a, b) => a - b),
      expected,
      `top-k ${k}`,
    )
  }
})

test('of equal tokens, top-p keeps the lowest ids, as many as begin below the share', () => {
  // Weights 1, four times e^-1 and e^-2: 0.6 of the total is reached within the second of the four.
  const { kept } = sample(open('plain'), [{ logits: [2, 1, 1, 1, 1, 0], topP: 0.6 }])[0]!
  assert.deepEqual([...kept.keys()].sort(), [0, 1, 2])
})

test('temperature 0 takes the likeliest token, of equal ones the lowest id', () => {
  const logits = [1, 5, 2, 5, 5]
  const device = open('plain')
  const token = (request: Partial<Request>) => sample(device, [{ logits, temperature: 0, ...request }])[0]!.token
  assert.equal(token({}), 1)
  assert.equal(token({ bias: [[1, -0.5]] }), 3)
  assert.equal(token({ allowed: [0, 2] }), 2)
  assert.equal(token({ repetition: 3, prompt: [1, 3] }), 4)
})

test('frequency and presence count the output, not the prompt; repetition counts both, once', () => {
  const device = open('plain')
  const logits = [2, 2, 2, -2]
  const score = (request: Partial<Request>) => {
    const { kept } = sample(device, [{ logits, ...request }])[0]!
    return [0, 1, 2, 3].map((id) => Math.log(kept.get(id)! / kept.get(2)!))
  }
  assertClose(score({ prompt: [0, 0, 3], output: [1, 1], presence: 0.5, frequency: 0.25 }), [0, -1, 0, -4], 1e-5)
  assertClose(score({ prompt: [0, 0, 3], output: [1, 1, 0], repetition: 2 }), [-1, -1, 0, -6], 1e-5)
})

test('NaN, infinite and entirely forbidden logits give a token of the vocabulary, an allowed one if there is any', () => {
  const device = open(isas.at(-1)!)
  const [nan, inf] = [Number.NaN, Number.POSITIVE_INFINITY]
  for (const temperature of [0, 1, 1e-30, nan]) {
    const token = (logits: number[], request: Partial<Request> = {}) =>
      sample(device, [{ logits, temperature, topP: 0.9, minP: 0.1, ...request }])[0]!.token
    assert.equal(token([nan, 1, nan]), 1)
    assert.equal(token([0, 1, inf]), 2)
    assert.equal(token([nan, nan, nan], { allowed: [2] }), 2)
    assert.ok([0, 1, 2].includes(token([nan, nan, nan])))
    assert.equal(token([-inf, -inf, -inf]), 0)
    assert.equal(token([1, 2, 3], { allowed: [] }), 0)
    assert.equal(token([-inf, -inf, 0]), 2)
    assert.equal(token([-1e38, 1e38, 3e38]), 2)
  }
})
