import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { StepOutput } from '../../engine/engine.ts'
import { pack, unpack } from '../../engine/packet.ts'

const outputs: StepOutput[] = [
  { type: 'failed', id: '3', code: 'request_failed', message: 'too long' },
  { type: 'token', id: '1', choice: 0, token: 17, index: 0, cachedTokens: 0 },
  { type: 'token', id: '1', choice: 1, token: 0, index: 5, cachedTokens: 64, finish: 'stop', stopTokenId: 0 },
  {
    type: 'token',
    id: '2',
    choice: 0,
    token: 150_000,
    index: 9,
    finish: 'length',
    logprobs: [
      { id: 150_000, logprob: -0.5, rank: 1 },
      { id: 4, logprob: -2.25, rank: 2 },
    ],
  },
  { type: 'token', id: '2', choice: 1, token: 8, index: 9, logprobs: [{ id: 8, logprob: -1.5, rank: 3 }] },
  { type: 'finish', id: '1', choice: 2, index: 4, finish: 'stop', stopTokenId: 5 },
  { type: 'finish', id: '1', choice: 3, index: 4, finish: 'length' },
]

test('what the engine said arrives unchanged, refusals first', () => {
  const packet = structuredClone(pack(outputs))
  assert.deepEqual(unpack(packet, String), outputs)
})

test('outputs of requests that are gone are dropped, the records of the others stay theirs', () => {
  const packet = pack(outputs)
  const rest = unpack(packet, (handle) => (handle === 2 ? 'two' : undefined))
  assert.deepEqual(
    rest,
    outputs.filter(({ id }) => id === '2').map((output) => ({ ...output, id: 'two' })),
  )
})

test('a step without outputs is a packet without outputs', () => {
  assert.deepEqual(unpack(pack([]), String), [])
})
