// Who reads a job, and what becomes of it when nobody does any more.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { append, beat, claim, reap } from '../../queue/consume.ts'
import { attach, enqueue, leave } from '../../queue/enqueue.ts'
import { gatewaysKey, jobKey } from '../../queue/keys.ts'
import { Streams } from '../../queue/stream.ts'
import { makeEngine, makeJob, plenty, Received, step, tokens, wide } from './jobs.ts'
import { onBothServers, type World } from './servers.ts'

const GRACE_MS = 300

async function read(world: World) {
  const { redis } = world
  const model = world.model()
  const engine = makeEngine(model)
  const gateway = `gateway-of-${model}`
  const terms = { graceMs: GRACE_MS, retentionMs: 500, view: 'a view' }
  await enqueue(redis, makeJob({ id: 'a', model }), plenty, terms)
  await beat(redis, engine, [], 0, 60_000)
  const claimed = (await claim(redis, engine, wide))[0]!
  const state = async () => String(await redis.command('HGET', jobKey(model, 'a'), 'st'))
  const open = async (name: string) => {
    const streams = await Streams.open(redis, name, world.clock)
    const received = new Received()
    return { streams, received, attachment: streams.attach({ id: 'a', model, n: 1 }, received.listener) }
  }
  return { redis, model, engine, gateway, terms, claimed, state, open }
}

await onBothServers('readers', (world) => {
  test('when its gateway has died a job goes on for its grace, then ends', async () => {
    const { redis, engine, claimed, state } = await read(world)
    assert.deepEqual(await beat(redis, engine, ['a'], 1, 60_000), { cancelled: [] })
    await append(redis, engine, [step(claimed, 0, 2)])
    await world.pass(GRACE_MS + 20)
    assert.deepEqual(await beat(redis, engine, ['a'], 2, 60_000), { cancelled: ['a'] })
    assert.equal(await state(), 'c')
  })

  test('a gateway that says it lives keeps its jobs, and says so by reading', async () => {
    const { redis, model, engine, gateway, state, open } = await read(world)
    const { streams } = await open(gateway)
    await world.pass(1100)
    assert.ok(await redis.command('ZSCORE', gatewaysKey(model), gateway))
    await reap(redis, model, gateway)
    assert.deepEqual(await beat(redis, engine, ['a'], 1, 60_000), { cancelled: [] })
    assert.equal(await state(), 'r')
    await streams.close()
  })

  test('a waiting job of a dead gateway is not begun', async () => {
    const { redis, model, engine, terms } = await read(world)
    await enqueue(redis, makeJob({ id: 'b', model }), plenty, terms)
    await world.pass(GRACE_MS + 20)
    assert.deepEqual(await claim(redis, engine, wide), [])
    assert.equal(String(await redis.command('HGET', jobKey(model, 'b'), 'st')), 'c')
  })

  test('two gateways read one job, each from the first token', async () => {
    const { redis, model, engine, claimed, gateway, open } = await read(world)
    const one = await open(gateway)
    await append(redis, engine, [step(claimed, 0, 3)])
    const found = await attach(redis, model, 'a', { gateway: 'second', tenant: 'acme' })
    assert.deepEqual(found, { view: 'a view', generation: 2 })
    const two = await open('second')
    two.attachment.admitted({ existed: true, generation: 2 })
    await world.until(() => two.received.ids[0]?.length === 3)
    await append(redis, engine, [step(claimed, 3, 5)])
    await append(redis, engine, [step(claimed, 5, 6, true)])
    for (const { received } of [one, two]) {
      await world.until(() => received.ended !== null)
      assert.deepEqual([received.violations, received.ids[0]?.length], [[], 6])
    }
    await one.streams.close()
    await two.streams.close()
  })

  test('two readers on one gateway share the job, and it ends with the last of them', async () => {
    const { redis, engine, claimed, gateway, open, state, model } = await read(world)
    const { streams, received, attachment } = await open(gateway)
    const late = new Received()
    const second = streams.attach({ id: 'a', model, n: 1 }, late.listener)
    await append(redis, engine, [step(claimed, 0, 2)])
    await world.until(() => late.ids[0]?.length === 2 && received.ids[0]?.length === 2)
    attachment.leave(false)
    await world.pass(20)
    assert.equal(await state(), 'r')
    second.leave(false)
    await world.pass(20)
    assert.equal(await state(), 'c')
    await streams.close()
  })

  test('a job to be kept outlives its last reader by its grace, and somebody who comes back in time saves it', async () => {
    const { redis, model, engine, gateway, state } = await read(world)
    await leave(redis, model, 'a', gateway, true)
    await world.pass(GRACE_MS / 2)
    assert.deepEqual(await beat(redis, engine, ['a'], 1, 60_000), { cancelled: [] })
    assert.ok(await attach(redis, model, 'a', { gateway, tenant: 'acme' }))
    await world.pass(GRACE_MS / 2 + 20)
    assert.deepEqual(await beat(redis, engine, ['a'], 2, 60_000), { cancelled: [] })
    await leave(redis, model, 'a', gateway, true)
    await world.pass(GRACE_MS + 20)
    assert.deepEqual(await beat(redis, engine, ['a'], 3, 60_000), { cancelled: ['a'] })
    assert.equal(await state(), 'c')
  })

  test('another tenant finds nothing to attach to', async () => {
    const { redis, model } = await read(world)
    assert.equal(await attach(redis, model, 'a', { gateway: 'g', tenant: 'other' }), null)
    assert.equal(await attach(redis, model, 'none', { gateway: 'g', tenant: 'acme' }), null)
  })

  test('a paused reader is given nothing, its journal outlives the retention, and it misses nothing', async () => {
    const { redis, engine, claimed, gateway, open } = await read(world)
    const { streams, received, attachment } = await open(gateway)
    await append(redis, engine, [step(claimed, 0, 1)])
    await world.until(() => received.ids[0]?.length === 1)
    attachment.pause()
    await append(redis, engine, [step(claimed, 1, 800)])
    await append(redis, engine, [step(claimed, 800, 1200, true)])
    await reap(redis, claimed.job.model, gateway, ['a'])
    await world.pass(400)
    await reap(redis, claimed.job.model, gateway, ['a'])
    await world.pass(400)
    assert.equal(received.ids[0]?.length, 1)
    attachment.resume()
    await world.until(() => received.ended !== null)
    assert.deepEqual([received.violations, received.ids[0]], [[], tokens(0, 1200).map(({ id }) => id)])
    await streams.close()
  })

  test('a reader that pauses in the middle of a large answer gets no more than a slice too much', async () => {
    const { redis, engine, claimed, gateway } = await read(world)
    const streams = await Streams.open(redis, gateway, world.clock)
    const received = new Received()
    const attachment = streams.attach({ id: 'a', model: claimed.job.model, n: 1 }, (event) => {
      received.listener(event)
      if (received.ids[0]?.length === 64) attachment.pause()
    })
    await append(redis, engine, [step(claimed, 0, 1000, true)])
    await world.pass(300)
    assert.equal(received.ids[0]?.length, 64)
    attachment.resume()
    await world.until(() => received.ended !== null)
    assert.deepEqual([received.violations, received.ids[0]?.length], [[], 1000])
    await streams.close()
  })
})
