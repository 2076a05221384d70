// Redis is away, or hangs: new requests are told at once, and everything heals by itself.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GatewayConfig } from '../../gateway/config.ts'
import { startGateway } from '../../gateway/main.ts'
import { systemClock } from '../../queue/clock.ts'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import { registerCard } from '../../queue/models.ts'
import type { Redis } from '../../queue/redis.ts'
import { card, chatBody, chatTemplate, FakeEngine, post, tokenizerJson, until } from './harness.ts'

test('while Redis hangs requests fail within a second and may be retried, and /ready is 503; then they go on', async () => {
  const inner = createEmbeddedRedis(systemClock)
  await registerCard(inner, card, { tokenizer: tokenizerJson, chatTemplate })
  let hang = Promise.resolve()
  const redis: Redis = {
    command: (...args) => hang.then(() => inner.command(...args)),
    script: (...args) => hang.then(() => inner.script(...args)),
    subscribe: (...args) => inner.subscribe(...args),
    onReconnect: (listener) => inner.onReconnect(listener),
    close: () => inner.close(),
  }
  const server = await startGateway(GatewayConfig.parse({ port: 0 }), redis, systemClock)
  const engine = new FakeEngine(inner)
  await engine.start()
  const url = `http://127.0.0.1:${server.port}`
  const ask = () => fetch(`${url}/v1/chat/completions`, post(chatBody()))
  assert.equal((await ask()).status, 200)

  const answered = engine.jobs.length
  const thaw = Promise.withResolvers<void>()
  hang = thaw.promise
  for (let i = 0; i < 3; i++) {
    const begun = systemClock.monotonic()
    const refused = await ask()
    assert.ok(systemClock.monotonic() - begun < 1000)
    assert.deepEqual([refused.status, refused.headers.get('x-should-retry')], [503, 'true'])
    assert.equal(((await refused.json()) as { error: { code: string } }).error.code, 'queue_unavailable')
  }
  await until(async () => (await fetch(`${url}/ready`)).status === 503)
  const begun = systemClock.monotonic()
  assert.equal((await ask()).status, 503)
  assert.ok(systemClock.monotonic() - begun < 100, 'once it is known nothing waits')
  assert.equal((await fetch(`${url}/live`)).status, 200)

  hang = Promise.resolve()
  thaw.resolve()
  await until(async () => (await fetch(`${url}/ready`)).status === 200)
  assert.equal((await ask()).status, 200)
  await until(() => engine.jobs.every((job, i) => i < answered || job.id !== '') && engine.jobs.length > answered)
  engine.stop()
  await server.close()
  await inner.close()
})
