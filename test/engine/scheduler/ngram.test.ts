import assert from 'node:assert/strict'
import { test } from 'node:test'
import { NgramDrafter, type Speculation } from '../../../engine/scheduler/ngram.ts'
import { Sequence } from '../../../engine/scheduler/sequence.ts'
import { dice, request } from './requests.ts'

const options: Speculation = {
  numSpeculativeTokens: 4,
  promptLookupMax: 3,
  promptLookupMin: 2,
  disableByBatchSize: null,
}

function guess(tokens: number[], changes: Partial<Speculation> = {}, most = 10): number[] {
  const drafter = new NgramDrafter({ ...options, ...changes })
  return drafter.draft(new Sequence(request('r', tokens), 0, 0), most, 1)
}

test('what followed the last tokens before is guessed', () => {
  assert.deepEqual(guess([1, 2, 3, 4, 5, 6, 7, 1, 2]), [3, 4, 5, 6])
  assert.deepEqual(guess([1, 2, 3, 4, 5, 6, 7, 9, 2]), [], 'one token alone is no reason')
  assert.deepEqual(guess([1, 2, 3, 4, 5, 6, 7, 9, 2], { promptLookupMin: 1 }), [3, 4, 5, 6])
  assert.deepEqual(guess([1, 2, 3, 4, 5, 6, 7, 1, 2], {}, 2), [3, 4])
  assert.deepEqual(guess([1, 2, 3], {}, 0), [])
  assert.deepEqual(guess([1]), [])
})

test('the longest match counts, of equal ones the latest', () => {
  assert.deepEqual(guess([7, 1, 2, 50, 8, 1, 2, 60, 9, 7, 1, 2]), [50, 8, 1, 2])
  assert.deepEqual(guess([7, 1, 2, 50, 8, 1, 2, 60, 9, 5, 1, 2]), [60, 9, 5, 1])
})

test('a loop is guessed beyond its beginning', () => {
  assert.deepEqual(guess([9, 1, 2, 1, 2]), [1, 2, 1, 2])
  assert.deepEqual(guess([4, 4, 4]), [4, 4, 4, 4])
})

test('token by token the guesses are those of a search over everything', () => {
  const roll = dice(3)
  const sequence = new Sequence(request('r', [0, 1, 2]), 0, 0)
  const drafter = new NgramDrafter(options)
  let found = 0
  for (let i = 0; i < 400; i++) {
    sequence.tokens.push(roll(12))
    const tokens = [...sequence.tokens.view]
    const draft = drafter.draft(sequence, 4, 1)
    assert.deepEqual(draft, search(tokens), `after ${tokens.length} tokens`)
    found += draft.length
  }
  assert.ok(found > 400)
})

function search(tokens: number[]): number[] {
  const end = tokens.length - 1
  for (let n = options.promptLookupMax; n >= options.promptLookupMin; n--) {
    const tail = tokens.slice(-n).join()
    for (let at = end - 1; at >= n - 1; at--) {
      if (tokens.slice(at - n + 1, at + 1).join() !== tail) continue
      const copied = [...tokens]
      for (let i = 1; i <= 4; i++) copied.push(copied[at + i]!)
      return copied.slice(tokens.length)
    }
  }
  return []
}
