import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertClose, isas, numbers, open, run } from './devices.ts'

for (const isa of isas) {
  test(`${isa}: log-probabilities, ranks and the most likely tokens equal a float64 log-softmax`, () => {
    const device = open(isa)
    for (const [vocab, k] of [
      [1, 1],
      [50, 0],
      [50, 50],
      [5003, 20],
    ] as const) {
      const rows = 3
      // Rounded, so that many are equal.
      const logits = numbers(rows * vocab, vocab, 8).map((logit) => Math.round(logit * 4) / 4)
      const tokens = Int32Array.from({ length: rows }, (_, i) => Math.floor((vocab - 1) / (i + 1)))
      const [topIds, top] = [device.alloc([rows, k], 'i32'), device.alloc([rows, k], 'f32')]
      const [logprob, rank] = [device.alloc([rows], 'f32'), device.alloc([rows], 'i32')]
      const input = device.upload(logits, [rows, vocab])
      run(device, (commands) =>
        commands.logprobs({ topIds, top, logprob, rank }, input, device.upload(tokens), rows, k),
      )
      for (let row = 0; row < rows; row++) {
        const own = logits.subarray(row * vocab, (row + 1) * vocab)
        const logTotal = Math.log(own.reduce((sum, logit) => sum + Math.exp(logit), 0))
        const order = Array.from(own.keys()).sort((a, b) => own[b]! - own[a]! || a - b)
        const expected = order.slice(0, k).map((id) => own[id]! - logTotal)
        assert.deepEqual(Array.from(topIds.rows(row, row + 1).read()), order.slice(0, k))
        assertClose(top.rows(row, row + 1).read(), expected, 1e-5)
        assertClose([logprob.read()[row]!], [own[tokens[row]!]! - logTotal], 1e-5)
        assert.equal(rank.read()[row], order.indexOf(tokens[row]!) + 1)
      }
    }
  })
}

test('a NaN among the logits is never among the most likely', () => {
  const device = open('plain')
  const [topIds, top] = [device.alloc([1, 2], 'i32'), device.alloc([1, 2], 'f32')]
  const [logprob, rank] = [device.alloc([1], 'f32'), device.alloc([1], 'i32')]
  const input = device.upload(Float32Array.of(Number.NaN, 1, Number.NaN, 3), [1, 4])
  run(device, (commands) =>
    commands.logprobs({ topIds, top, logprob, rank }, input, device.upload(Int32Array.of(3)), 1, 2),
  )
  assert.deepEqual(Array.from(topIds.read()), [3, 1])
})
