// A gateway killed with SIGKILL in the middle of a stream: the generation goes on without it, and the client gets its
// answer, from the first token or from where it was, through another gateway. As processes.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { engine, gateway, metric, redisFor } from './processes.ts'

test('after kill -9 of its gateway a stream is had from another, whole or the rest of it, and generated once', {
  timeout: 60_000,
}, async (t) => {
  const redis = await redisFor(t)
  if (!redis) return
  const [worker, first, second] = await Promise.all([engine(t, redis), gateway(t, redis), gateway(t, redis)])
  const body = { model: 'demo', prompt: 'Pagestream is', max_tokens: 1500, ignore_eos: true, stream: true }
  const ask = (port: number) =>
    fetch(`http://127.0.0.1:${port}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': 'one order' },
      body: JSON.stringify(body),
    })

  let before = ''
  await assert.rejects(async () => {
    for await (const bytes of (await ask(first.port)).body!) {
      before += Buffer.from(bytes).toString('latin1')
      if (before.length > 20_000) first.child.kill('SIGKILL')
    }
  })
  const complete = before.slice(0, before.lastIndexOf('\n\n') + 2)
  assert.doesNotMatch(complete, /\[DONE\]/)
  const position = complete
    .match(/^id: \d+$/gm)!
    .at(-1)!
    .slice(4)
  const id = /"id":"(cmpl-[^"]+)"/.exec(complete)![1]

  const latin1 = async (answer: Response) => Buffer.from(await answer.arrayBuffer()).toString('latin1')
  const whole = await latin1(await ask(second.port))
  const url = `http://127.0.0.1:${second.port}/v1/streams/${id}?starting_after=${position}`
  const rest = await latin1(await fetch(url))
  assert.ok(whole.endsWith('data: [DONE]\n\n'))
  assert.equal(complete + rest, whole)
  assert.equal(await metric(worker.port, 'vllm:generation_tokens_total'), 1500)
})
