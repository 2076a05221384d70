import assert from 'node:assert/strict'
import { test } from 'node:test'
import { precedence, Sequence } from '../../../engine/scheduler/sequence.ts'
import { WaitingQueue } from '../../../engine/scheduler/waiting.ts'
import { dice, request } from './requests.ts'

test('whatever is pushed and removed, the best sequence is in front and tokens are counted', () => {
  const roll = dice(1)
  const queue = new WaitingQueue()
  let expected: Sequence[] = []
  for (let i = 0; i < 20_000; i++) {
    if (roll(5) < 3) {
      const sequence = new Sequence(request(`${i}`, new Array(1 + roll(9)), {}, { class: roll(3) }), roll(4), i)
      expected.push(sequence)
      expected.sort(precedence)
      queue.push(sequence)
    } else if (expected.length > 0) {
      const gone = roll(2) === 0 ? expected[0]! : expected[roll(expected.length)]!
      expected = expected.filter((sequence) => sequence !== gone)
      queue.remove(gone)
    }
    if (expected.length > 60) for (const sequence of expected.splice(20)) queue.remove(sequence)
    assert.equal(queue.peek(), expected[0])
    assert.equal(queue.size, expected.length)
    assert.equal(
      queue.tokens,
      expected.reduce((sum, sequence) => sum + sequence.length, 0),
    )
  }
})

test('removing what does not wait is an error', () => {
  const sequence = new Sequence(request('a', [1]), 0, 0)
  assert.throws(() => new WaitingQueue().remove(sequence), /a\/0 does not wait/)
})
