// The engine without a model says t0, t1, … through the real queue, and gives back what it took.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '../../queue/clock.ts'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import { cancel, enqueue } from '../../queue/enqueue.ts'
import type { Event } from '../../queue/event.ts'
import { listCards } from '../../queue/models.ts'
import { Streams } from '../../queue/stream.ts'
import { startFakeEngine } from '../../scripts/bench/fake-engine.ts'
import { makeJob } from '../queue/jobs.ts'

async function fake(model: string) {
  const redis = createEmbeddedRedis(systemClock)
  const engine = await startFakeEngine(redis, systemClock, {
    model,
    leaseMs: 1000,
    maxNumSeqs: 8,
    onError: assert.fail,
  })
  const streams = await Streams.open(redis, 'g', systemClock)
  const close = async () => {
    await engine.close()
    await streams.close()
    await redis.close()
  }
  const job = (id: string, maxTokens: number) => makeJob({ id, model, gateway: 'g', revision: 'fake', maxTokens })
  return { redis, engine, streams, close, job }
}

test('its tokens are numbered texts, as many as asked for, and its blocks come back', async () => {
  const { redis, engine, streams, close, job } = await fake('fake-i1')
  const events: Event[] = []
  const ended = new Promise<void>((resolve) => {
    streams.attach({ id: 'a', model: 'fake-i1', n: 1 }, (event) => {
      events.push(event)
      if (event.type === 'done' || event.type === 'failed') resolve()
    })
  })
  assert.deepEqual((await listCards(redis))[0]?.name, 'fake-i1')
  await enqueue(redis, job('a', 12), { maxQueuedRequests: 10, maxQueuedTokens: 10_000 })
  await ended
  const texts = events.flatMap((event) => (event.type === 'tokens' ? event.tokens.map(({ text }) => text) : []))
  assert.equal(texts.join(''), 't0 t1 t2 t3 t4 t5 t6 t7 t8 t9 t10 t11')
  assert.equal(events.at(-1)?.type, 'done')
  assert.equal(engine.freeBlocks(), engine.totalBlocks)
  await close()
})

test('a cancelled request frees its blocks', async () => {
  const { redis, engine, streams, close, job } = await fake('fake-i5')
  const begun = new Promise<void>((resolve) => {
    streams.attach({ id: 'a', model: 'fake-i5', n: 1 }, () => resolve())
  })
  await enqueue(redis, job('a', 2000), { maxQueuedRequests: 10, maxQueuedTokens: 10_000 })
  await begun
  assert.ok(engine.freeBlocks() < engine.totalBlocks)
  await cancel(redis, 'fake-i5', 'a')
  await systemClock.sleep(50)
  assert.equal(engine.freeBlocks(), engine.totalBlocks)
  await close()
})

test('a name that is not fake-i<ms> is refused', async () => {
  await assert.rejects(fake('demo'), /--model must be fake-i<ms>, not "demo"/)
})
