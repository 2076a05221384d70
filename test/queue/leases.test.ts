import assert from 'node:assert/strict'
import { test } from 'node:test'
import { append, beat, type Claimed, claim, control, reap, release } from '../../queue/consume.ts'
import { cancel, enqueue } from '../../queue/enqueue.ts'
import { heldKey, jobKey } from '../../queue/keys.ts'
import { poolState } from '../../queue/models.ts'
import { Streams } from '../../queue/stream.ts'
import { LEASE_MS, makeEngine, makeJob, plenty, Received, step, wide } from './jobs.ts'
import { onBothServers, type World } from './servers.ts'

/** beat.lua: how long a claim's reply may take. */
const GRACE_MS = 600

async function runningJob(world: World, id = 'a') {
  const model = world.model()
  const engine = makeEngine(model)
  await enqueue(world.redis, makeJob({ id, model }), plenty)
  await beat(world.redis, engine, [], 0, LEASE_MS)
  const [claimed] = await claim(world.redis, engine, wide)
  const second = makeEngine(model, { id: 'engine-2' })
  const claimBySecond = async (): Promise<Claimed | undefined> => {
    await beat(world.redis, second, [], 0, LEASE_MS)
    return (await claim(world.redis, second, wide))[0]
  }
  const attempts = async () => Number(await world.redis.command('HGET', jobKey(model, id), 'att'))
  return { model, engine, second, claimed: claimed!, claimBySecond, attempts }
}

await onBothServers('leases', (world) => {
  test('beats keep the work of a live engine from being reaped', async () => {
    const { model, engine } = await runningJob(world)
    for (let i = 0; i < 4; i++) {
      await world.pass(LEASE_MS / 2)
      assert.deepEqual(await beat(world.redis, engine, ['a'], i, LEASE_MS), { cancelled: [] })
      assert.equal(await reap(world.redis, model), 0)
    }
  })

  test('reap moves the work of a dead engine once, with a strike', async () => {
    const { model, engine, claimBySecond, attempts } = await runningJob(world)
    await world.pass(LEASE_MS + 10)
    assert.equal(await reap(world.redis, model), 1)
    assert.equal(await reap(world.redis, model), 0)
    assert.equal(await attempts(), 1)
    assert.equal((await claimBySecond())?.job.id, 'a')
    assert.deepEqual(await beat(world.redis, engine, ['a'], 1, LEASE_MS), { cancelled: ['a'] })
  })

  test('the fourth engine that dies with a job ends it with an explicit failure', async () => {
    const model = world.model()
    const streams = await Streams.open(world.redis, `gateway-of-${model}`, world.clock)
    const received = new Received()
    streams.attach({ id: 'poison', model, n: 1 }, received.listener)
    await enqueue(world.redis, makeJob({ id: 'poison', model }), plenty)
    for (let life = 1; life <= 4; life++) {
      const engine = makeEngine(model, { id: `life-${life}` })
      await beat(world.redis, engine, [], 0, 30)
      assert.equal((await claim(world.redis, engine, wide)).length, 1, `life ${life}`)
      await world.pass(40)
      assert.equal(await reap(world.redis, model), 1)
    }
    await world.until(() => received.ended !== null)
    assert.equal(received.ended?.type === 'failed' && received.ended.code, 'request_failed')
    const { queued, running } = await poolState(world.redis, model)
    assert.deepEqual([queued, running], [0, 0])
    await streams.close()
  })

  test('a claim whose reply was lost is given back by a later beat, without a strike', async () => {
    const { engine, claimBySecond, attempts } = await runningJob(world)
    assert.deepEqual(await beat(world.redis, engine, [], 1, 60_000), { cancelled: [] })
    assert.equal(await claimBySecond(), undefined, 'the reply may still be on its way')
    await world.pass(GRACE_MS + 10)
    await beat(world.redis, engine, [], 2, 60_000)
    assert.equal((await claimBySecond())?.job.id, 'a')
    assert.equal(await attempts(), 0)
  })

  test('release gives work back at once and without a strike, and only under the right epoch', async () => {
    const { model, engine, claimed, claimBySecond, attempts } = await runningJob(world)
    await append(world.redis, engine, [step(claimed, 0, 2)])
    await release(world.redis, engine, [{ id: 'a', epoch: '1' }])
    assert.equal((await poolState(world.redis, model)).running, 1)
    await release(world.redis, engine, [{ id: 'a', epoch: claimed.epoch }])
    await release(world.redis, engine, [{ id: 'a', epoch: claimed.epoch }])
    assert.deepEqual(await append(world.redis, engine, [step(claimed, 2, 3)]), ['fenced'])
    const again = await claimBySecond()
    assert.equal(again?.journal[0]?.length, 2)
    assert.equal(await attempts(), 0)
    const { queued, running } = await poolState(world.redis, model)
    assert.deepEqual([queued, running], [0, 1])
  })

  test('cancelling a running job tells its engine at once, fences it, and its beat tells it again', async () => {
    const { model, engine, claimed } = await runningJob(world)
    const heard: string[] = []
    const stop = await control(world.redis, engine.id, ({ cancel }) => heard.push(cancel))
    await cancel(world.redis, model, 'a')
    await world.until(() => heard.length === 1)
    assert.deepEqual(heard, ['a'])
    assert.deepEqual(await append(world.redis, engine, [step(claimed, 0, 1)]), ['fenced'])
    assert.deepEqual(await beat(world.redis, engine, ['a'], 1, LEASE_MS), { cancelled: ['a'] })
    assert.equal(await world.redis.command('EXISTS', heldKey(model, engine.id)), 0)
    assert.equal((await poolState(world.redis, model)).running, 0)
    stop()
  })

  test('cancelling what ended or never was does nothing', async () => {
    const { model, engine, claimed } = await runningJob(world)
    await append(world.redis, engine, [step(claimed, 0, 1, true)])
    await cancel(world.redis, model, 'a')
    await cancel(world.redis, model, 'nobody')
    assert.equal(String(await world.redis.command('HGET', jobKey(model, 'a'), 'st')), 'd')
  })

  test('an engine that died after its last append costs nothing', async () => {
    const { model, engine, claimed, claimBySecond } = await runningJob(world)
    await append(world.redis, engine, [step(claimed, 0, 1, true)])
    await world.pass(LEASE_MS + 10)
    assert.equal(await reap(world.redis, model), 0)
    assert.equal(await claimBySecond(), undefined)
    assert.equal((await poolState(world.redis, model)).engines, 1)
  })

  test('an engine that wakes after its lease claims nothing before it beats', async () => {
    const { model, engine } = await runningJob(world)
    await enqueue(world.redis, makeJob({ id: 'b', model }), plenty)
    await world.pass(LEASE_MS + 10)
    assert.deepEqual(await claim(world.redis, engine, wide), [])
    await reap(world.redis, model)
    assert.deepEqual(await claim(world.redis, engine, wide), [])
    assert.deepEqual(await beat(world.redis, engine, ['a'], 1, LEASE_MS), { cancelled: ['a'] })
    assert.equal((await claim(world.redis, engine, wide)).length, 2)
  })
})
