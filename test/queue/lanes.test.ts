import assert from 'node:assert/strict'
import { test } from 'node:test'
import { append, beat, claim, doorbell, type Room, reap, release } from '../../queue/consume.ts'
import { cancel, enqueue } from '../../queue/enqueue.ts'
import type { Job } from '../../queue/job.ts'
import { deadlinesKey, jobKey, laneKey, lanesKey, waitingKey } from '../../queue/keys.ts'
import { poolState } from '../../queue/models.ts'
import { Streams } from '../../queue/stream.ts'
import { makeEngine, makeJob, plenty, Received, step, wide } from './jobs.ts'
import { onBothServers, type World } from './servers.ts'

type Fields = Partial<Omit<Job, 'id' | 'model' | 'sampling'>> & { n?: number; maxTokens?: number }

function pool(world: World) {
  const model = world.model()
  const { redis } = world
  const engine = makeEngine(model)
  return {
    model,
    engine,
    add: (id: string, fields: Fields = {}) => enqueue(redis, makeJob({ id, model, ...fields }), plenty),
    /** Ids in the order of the claim. */
    async claims(room: Partial<Room> = {}, by = engine): Promise<string> {
      await beat(redis, by, [], 0, 60_000)
      return (await claim(redis, by, { ...wide, ...room })).map(({ job }) => job.id).join(' ')
    },
    /** Claims one job, writes `count` tokens, gives it back. */
    async resume(count: number, by = engine): Promise<void> {
      await beat(redis, by, [], 0, 60_000)
      const [claimed] = await claim(redis, by, { ...wide, sequences: 1 })
      await append(redis, by, [step(claimed!, 0, count)])
      await release(redis, by, [{ id: claimed!.job.id, epoch: claimed!.epoch }])
    },
  }
}

await onBothServers('the lanes', (world) => {
  test('jobs are claimed in order of arrival, whatever their tenants', async () => {
    const { add, claims } = pool(world)
    for (const [i, tenant] of ['x', 'y', 'x', 'z', 'y', 'x'].entries()) await add(`j${i}`, { tenant })
    assert.equal(await claims(), 'j0 j1 j2 j3 j4 j5')
  })

  test('a better class goes before an earlier arrival', async () => {
    const { add, claims } = pool(world)
    await add('late', { class: 99 })
    await add('middle', { class: 50 })
    await add('first', { class: 0 })
    await add('middle2', { class: 50, tenant: 'other' })
    assert.equal(await claims(), 'first middle middle2 late')
  })

  test('a claim takes what fits and stops at the first job that does not', async () => {
    const { add, claims } = pool(world)
    await add('a')
    await add('b')
    await add('large', { maxTokens: 500 })
    await add('small')
    assert.equal(await claims({ tokens: 25 }), 'a b')
    assert.equal(await claims({ tokens: 25 }), '', 'small does not overtake large')
    assert.equal(await claims({ tokens: 600 }), 'large small')
  })

  test('a claim takes no more sequences than the engine has free', async () => {
    const { add, claims } = pool(world)
    await add('a')
    await add('b', { n: 3 })
    await add('c')
    assert.equal(await claims({ sequences: 3 }), 'a')
    assert.equal(await claims({ sequences: 4 }), 'b c')
  })

  test('an engine that holds nothing takes a job of any size, but only one', async () => {
    const { add, claims } = pool(world)
    await add('huge', { n: 4, maxTokens: 9000 })
    await add('small')
    assert.equal(await claims({ tokens: 20, sequences: 2 }), 'huge')
    assert.equal(await claims({ tokens: 0, sequences: 0 }), '')
  })

  test('a job of another revision is left alone and blocks nobody', async () => {
    const { add, claims, model } = pool(world)
    await add('old', { revision: 'rev0' })
    await add('new')
    assert.equal(await claims(), 'new')
    assert.equal(await claims({}, makeEngine(model, { id: 'engine-0', revision: 'rev0' })), 'old')
  })

  test('a started job goes on only under equal numerics; one without tokens anywhere', async () => {
    const { add, claims, resume, model } = pool(world)
    const other = makeEngine(model, { id: 'engine-2', numerics: 'cpu-avx512' })
    await add('started')
    await resume(2)
    await add('fresh')
    assert.equal(await claims({}, other), 'fresh')
    assert.equal(await claims(), 'started')

    await add('unstarted')
    await beat(world.redis, other, ['fresh'], 0, 60_000)
    const [claimed] = await claim(world.redis, other, wide)
    await release(world.redis, other, [{ id: 'unstarted', epoch: claimed!.epoch }])
    assert.equal(await claims(), 'unstarted')
  })

  test('resumed jobs go before new ones of their class, not before a better class', async () => {
    const { add, claims, resume } = pool(world)
    for (const id of ['a', 'b', 'c']) await add(id)
    await resume(0)
    await resume(1)
    await add('d')
    await add('urgent', { class: 0 })
    assert.equal(await claims(), 'urgent a b c d')
  })

  test('without a lease nothing is claimed', async () => {
    const { add, engine, claims } = pool(world)
    await add('a')
    assert.deepEqual(await claim(world.redis, engine, wide), [])
    assert.equal(await claims(), 'a')
  })

  test('a full queue refuses before it writes anything', async () => {
    const { model, claims } = pool(world)
    const two = { maxQueuedRequests: 2, maxQueuedTokens: 1000 }
    for (const id of ['a', 'b']) assert.ok((await enqueue(world.redis, makeJob({ id, model }), two)).admitted)
    const refused = await enqueue(world.redis, makeJob({ id: 'c', model }), two)
    assert.deepEqual(refused, { admitted: false, code: 'queue_full', retryAfterMs: 1000 })
    assert.equal(await world.redis.command('EXISTS', jobKey(model, 'c')), 0)
    assert.equal(await claims(), 'a b')
    assert.ok((await enqueue(world.redis, makeJob({ id: 'c', model }), two)).admitted)
  })

  test('the bound on tokens counts what waiting jobs may come to hold, and an empty queue takes any job', async () => {
    const { model } = pool(world)
    const narrow = { maxQueuedRequests: 100, maxQueuedTokens: 25 }
    const admit = async (id: string) => (await enqueue(world.redis, makeJob({ id, model }), narrow)).admitted
    assert.deepEqual([await admit('a'), await admit('b'), await admit('c')], [true, true, false])
    const large = makeJob({ id: 'large', model: world.model(), maxTokens: 5000 })
    assert.ok((await enqueue(world.redis, large, narrow)).admitted)
  })

  test('a repeated enqueue admits the job once', async () => {
    const { model, add, claims } = pool(world)
    await add('a')
    assert.deepEqual(await add('a'), { admitted: true, existed: true, generation: 2 })
    assert.equal((await poolState(world.redis, model)).queued, 1)
    assert.equal(await claims(), 'a')
    assert.ok((await add('a')).admitted, 'also while it runs')
    assert.equal(await claims(), '')
  })

  test('cancelling waiting jobs, head, middle or last, leaves the others in order and no empty lane', async () => {
    const { add, claims, model } = pool(world)
    for (const id of ['a', 'b', 'c', 'd', 'e']) await add(id, { tenant: id === 'b' ? 'other' : 'acme' })
    for (const id of ['a', 'c', 'e', 'b']) await cancel(world.redis, model, id)
    assert.equal(await world.redis.command('ZCARD', lanesKey(model, 'rev1')), 1)
    assert.equal(await claims(), 'd')
    await add('z')
    await cancel(world.redis, model, 'z')
    await cancel(world.redis, model, 'd')
    const left = [lanesKey(model, 'rev1'), waitingKey(model), deadlinesKey(model), laneKey(model, '10:rev1:t:acme')]
    assert.equal(await world.redis.command('EXISTS', ...left), 0)
    const { queued, queuedTokens, running } = await poolState(world.redis, model)
    assert.deepEqual([queued, queuedTokens, running], [0, 0, 0])
  })

  test('a job past its deadline fails instead of starting, at claim or, with no engine, at reap', async () => {
    const { add, claims, model } = pool(world)
    const streams = await Streams.open(world.redis, `gateway-of-${model}`, world.clock)
    const received = ['a', 'b'].map((id) => {
      const one = new Received()
      streams.attach({ id, model, n: 1 }, one.listener)
      return one
    })
    await add('a', { maxWaitMs: 30 })
    await add('c')
    await world.pass(40)
    assert.equal(await claims(), 'c')
    await add('b', { maxWaitMs: 30 })
    assert.equal(await reap(world.redis, model), 0)
    await world.pass(40)
    assert.equal(await reap(world.redis, model), 1)
    await world.until(() => received.every(({ ended }) => ended !== null))
    for (const { ended } of received) assert.equal(ended?.type === 'failed' && ended.code, 'capacity_timeout')
    assert.equal((await poolState(world.redis, model)).queued, 0)
    await streams.close()
  })

  test('a job that started does not lose its turn to its deadline', async () => {
    const { add, claims, resume, model } = pool(world)
    await add('a', { maxWaitMs: 60 })
    await resume(2)
    await world.pass(80)
    assert.equal(await reap(world.redis, model), 0)
    assert.equal(await claims(), 'a')
  })

  test('the doorbell rings when there is something to claim', async () => {
    const { add, model } = pool(world)
    let rings = 0
    const stop = await doorbell(world.redis, model, () => rings++)
    await add('a')
    await world.until(() => rings === 1)
    stop()
  })

  test('the state of a pool counts what waits, runs and serves', async () => {
    const { add, claims, model } = pool(world)
    const idle = { queued: 0, queuedTokens: 0, running: 0, engines: 0, lastUse: 0, desired: 0, oldestAgeMs: 0 }
    assert.deepEqual(await poolState(world.redis, model), idle)
    await add('a')
    await add('b')
    await world.pass(20)
    const { lastUse, oldestAgeMs, ...waiting } = await poolState(world.redis, model)
    assert.deepEqual(waiting, { queued: 2, queuedTokens: 20, running: 0, engines: 0, desired: 1 })
    assert.ok(oldestAgeMs >= 18 && oldestAgeMs < 1000, `the oldest waits ${oldestAgeMs} ms`)
    assert.ok(Math.abs(lastUse - world.clock.now()) < 5000)
    assert.equal(await claims({ sequences: 1 }), 'a')
    const { queued, queuedTokens, running, engines } = await poolState(world.redis, model)
    assert.deepEqual([queued, queuedTokens, running, engines], [1, 10, 1, 1])
  })

  test('hundreds of lanes drain in order of arrival and leave nothing', async () => {
    const { add, claims, model } = pool(world)
    const ids = Array.from({ length: 400 }, (_, i) => `j${i}`)
    await Promise.all(ids.map((id, i) => add(id, { tenant: `tenant ${i % 300}`, class: i % 2 })))
    const order = [...ids.filter((_, i) => i % 2 === 0), ...ids.filter((_, i) => i % 2 === 1)]
    assert.equal(await claims(), order.join(' '))
    assert.equal(await world.redis.command('EXISTS', lanesKey(model, 'rev1')), 0)
  })
})
