// A pool with no engine still takes requests: the gateway knows the model from its card, the queue holds the job, the
// client sees comments, and the first engine that starts answers.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { engine, gateway, redisFor, stream } from './processes.ts'

test('a request sent while no engine runs waits and is answered when one starts', { timeout: 120_000 }, async (t) => {
  const redis = await redisFor(t)
  if (!redis) return
  const first = await engine(t, redis) // registers the card
  const { port } = await gateway(t, redis, '--keep-alive-comment-ms', '200', '--headers-after-ms', '200')
  const body = { model: 'demo', messages: [{ role: 'user', content: 'What is PagedAttention?' }], temperature: 0 }
  const warm = await stream(port, '/v1/chat/completions', body)
  first.child.kill('SIGTERM')
  assert.equal(await first.exited, 0, `a drained engine exits with 0:\n${first.output()}`)

  let waited!: () => void
  const commented = new Promise<void>((resolve) => {
    waited = resolve
  })
  const cold = stream(port, '/v1/chat/completions', body, (s) => s.comments.length >= 3 && waited())
  await commented
  await engine(t, redis)
  const answer = await cold
  assert.equal(answer.status, 200)
  assert.ok(answer.done)
  assert.equal(answer.text, warm.text)
  assert.ok(answer.text.length > 20)
})

test('a long prompt is refused at once while no engine runs', { timeout: 120_000 }, async (t) => {
  const redis = await redisFor(t)
  if (!redis) return
  const first = await engine(t, redis)
  first.child.kill('SIGTERM')
  await first.exited
  const { port } = await gateway(t, redis)
  const answer = await stream(port, '/v1/completions', { model: 'demo', prompt: 'word '.repeat(5000) })
  assert.equal(answer.status, 400)
  assert.equal(JSON.parse(answer.text).error.code, 'context_length_exceeded')
})
