// The codec of journal elements: what was written yesterday is read today, and everything survives the way.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeElement, encodeFinish, encodeToken, type Token } from '../../queue/event.ts'

const record = { id: 7, logprob: -0.5, rank: 1, bytes: [0xc3, 0xa9] }

test('elements of every release are read', () => {
  assert.deepEqual(decodeElement('[5,"a"]'), { token: { id: 5, text: 'a' } })
  assert.deepEqual(decodeElement('[5,"",[[7,-0.5,1,[195,169]]]]'), { token: { id: 5, text: '', logprobs: [record] } })
  const finish = { text: 'b', reason: 'stop', stopReason: null }
  assert.deepEqual(decodeElement('[-1,"b","stop",null]'), { finish })
  assert.deepEqual(decodeElement([-1, 'b', 'stop', null]), { finish })
})

test('tokens and finishes survive the way', () => {
  const tokens: Token[] = [
    { id: 0, text: '"\n' },
    { id: 1, text: 'x', logprobs: [record, record] },
    { id: 2, text: 'x', prompt: [[{ ...record, rank: 0 }], [record, record]] },
    { id: 3, text: '', logprobs: [record], prompt: [[record]] },
  ]
  for (const token of tokens) assert.deepEqual(decodeElement(encodeToken(token)), { token })
  const finish = { text: '', reason: 'stop', stopReason: 'END' } as const
  assert.deepEqual(decodeElement(encodeFinish(finish)), { finish })
})
