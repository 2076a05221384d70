// Two gateways, two engines, one Redis, as five processes: who asks and who answers does not matter, and an engine
// killed with SIGKILL in the middle of a stream changes nothing in the text.
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { engine, gateway, metric, type Process, redisFor, type Stream, stream, until } from './processes.ts'

const prompt = 'Pagestream is'
const long = { model: 'demo', prompt, max_tokens: 1500, ignore_eos: true }

test('any gateway is served by any engine', { timeout: 120_000 }, async (t) => {
  const redis = await redisFor(t)
  if (!redis) return
  const engines = await Promise.all([engine(t, redis, '--max-num-seqs', '2'), engine(t, redis, '--max-num-seqs', '2')])
  const gateways = await Promise.all([gateway(t, redis), gateway(t, redis)])

  const asks = Array.from({ length: 12 }, (_, i) =>
    stream(gateways[i % 2]!.port, '/v1/completions', {
      model: 'demo',
      prompt,
      max_tokens: 200,
      ignore_eos: true,
      temperature: 0,
    }),
  )
  const answers = await Promise.all(asks)
  assert.equal(new Set(answers.map((a) => a.text)).size, 1, 'greedy answers are equal whoever computed them')
  for (const answer of answers) {
    assert.ok(answer.done)
    assert.equal(answer.chunks.at(-1)?.usage?.completion_tokens, 200)
  }
  for (const [i, { port }] of engines.entries())
    assert.ok((await metric(port, 'vllm:generation_tokens_total')) > 0, `engine ${i} computed nothing`)
})

/** Kills the engine that runs the only stream once the client has seen `after` chunks. */
async function killWhileStreaming(
  port: number,
  engines: Process[],
  body: Record<string, unknown>,
  after: number,
): Promise<Stream> {
  let killed: Promise<void> | null = null
  const kill = async () => {
    for (const { child, port } of engines)
      if ((await metric(port, 'vllm:num_requests_running')) > 0) {
        child.kill('SIGKILL')
        return
      }
    throw new Error('no engine was running the stream; it ended before it could be killed')
  }
  const result = await stream(port, '/v1/completions', body, (s) => {
    if (s.chunks.length === after) killed ??= kill()
  })
  await killed
  return result
}

async function sameTextAfterKill(t: TestContext, sampling: Record<string, unknown>): Promise<void> {
  const redis = await redisFor(t)
  if (!redis) return
  const engines = await Promise.all([engine(t, redis), engine(t, redis)])
  const { port } = await gateway(t, redis)

  const expected = await stream(port, '/v1/completions', { ...long, ...sampling })
  assert.equal(expected.chunks.at(-1)?.usage?.completion_tokens, 1500)
  await until(
    'the engines to be idle',
    async () =>
      (await metric(engines[0]!.port, 'vllm:num_requests_running')) +
        (await metric(engines[1]!.port, 'vllm:num_requests_running')) ===
      0,
  )

  const actual = await killWhileStreaming(port, engines, { ...long, ...sampling }, 100)
  assert.equal(engines.filter(({ child }) => child.signalCode === 'SIGKILL').length, 1)
  assert.ok(actual.done)
  assert.equal(actual.text, expected.text)
  assert.equal(actual.chunks.at(-1)?.usage?.completion_tokens, 1500)
}

test('a greedy stream survives kill -9 of its engine with the same text', { timeout: 120_000 }, (t) =>
  sameTextAfterKill(t, { temperature: 0 }),
)

test('a seeded stream survives kill -9 of its engine with the same text', { timeout: 120_000 }, (t) =>
  sameTextAfterKill(t, { temperature: 0.9, top_p: 0.95, seed: 1234 }),
)
