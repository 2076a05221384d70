// Redis goes back in time, and what gateways and engines still hold puts it right.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { append, beat, type Claimed, claim, reap } from '../../queue/consume.ts'
import type { Request } from '../../queue/delivery.ts'
import { attach, enqueue } from '../../queue/enqueue.ts'
import { encodeToken, type Token } from '../../queue/event.ts'
import { jobKey, journalKey } from '../../queue/keys.ts'
import { poolState } from '../../queue/models.ts'
import { Streams } from '../../queue/stream.ts'
import { LEASE_MS, makeEngine, makeJob, plenty, Received, step, token, tokens, usage, wide } from './jobs.ts'
import { onBothServers, type World } from './servers.ts'

async function running(world: World, { holdsJob = true } = {}) {
  const { redis } = world
  const model = world.model()
  const gateway = `gateway-of-${model}`
  const job = makeJob({ id: 'a', model })
  const streams = await Streams.open(redis, gateway, world.clock)
  const read = (request: Partial<Request> = {}, from = streams) => {
    const received = new Received()
    return { received, attachment: from.attach({ id: 'a', model, n: 1, ...request }, received.listener) }
  }
  const { received, attachment } = read(holdsJob ? { origin: { job, terms: {} } } : {})
  const admission = await enqueue(redis, job, plenty)
  assert.ok(admission.admitted)
  attachment.admitted(admission)
  const start = async (id: string, fields = {}) => {
    const engine = makeEngine(model, { id, ...fields })
    await beat(redis, engine, [], 0, LEASE_MS)
    return { engine, claimed: (await claim(redis, engine, wide))[0] as Claimed }
  }
  const first = await start('first')
  await append(redis, first.engine, [step(first.claimed, 0, 4)])
  await world.until(() => received.ids[0]?.length === 4)
  const loseTail = async (length: number) => {
    await redis.command('DEL', journalKey(model, 'a', 0))
    if (length > 0) {
      await redis.command('RPUSH', journalKey(model, 'a', 0), ...tokens(0, length).map(encodeToken))
    }
  }
  const loseJob = () => redis.command('DEL', jobKey(model, 'a'), journalKey(model, 'a', 0))
  const die = async () => {
    await world.pass(LEASE_MS + 10)
    await reap(redis, model)
  }
  const journal = async () =>
    ((await redis.command('LRANGE', journalKey(model, 'a', 0), 0, -1)) as Buffer[]).map(String)
  const until = async (condition: () => Promise<boolean>) => {
    for (let waited = 0; !(await condition()); waited += 20) {
      if (waited > 2000) throw new Error('waited two seconds in vain')
      await world.pass(20)
    }
  }
  const texts = (count: number) => [
    `${tokens(0, count)
      .map(({ text }) => text)
      .join('')}.`,
  ]
  return {
    redis,
    model,
    gateway,
    job,
    streams,
    received,
    read,
    first,
    start,
    loseTail,
    loseJob,
    die,
    journal,
    until,
    texts,
  }
}

await onBothServers('a Redis that went back in time', (world) => {
  test('a lost tail is put back by the gateway, and whoever had gone on without it is fenced', async () => {
    const { redis, received, start, loseTail, die, journal, until, texts, streams } = await running(world)
    await loseTail(2)
    await die()
    const second = await start('second')
    assert.equal(second.claimed.journal[0]?.length, 2)
    await append(redis, second.engine, [
      { id: 'a', epoch: second.claimed.epoch, choices: [{ choice: 0, from: 2, tokens: [token(77)] }] },
    ])
    await until(async () => (await journal()).length === 4)
    assert.deepEqual(await journal(), tokens(0, 4).map(encodeToken))
    assert.deepEqual(await append(redis, second.engine, [step(second.claimed, 3, 4)]), ['fenced'])
    const third = await start('third')
    assert.equal(third.claimed.journal[0]?.length, 4)
    await append(redis, third.engine, [step(third.claimed, 4, 6, true)])
    await world.until(() => received.ended !== null)
    assert.deepEqual([received.violations, received.texts, received.ended], [[], texts(6), { type: 'done', usage }])
    await streams.close()
  })

  test('a job that Redis lost is queued again with what was delivered, for engines of the same numerics', async () => {
    const { redis, model, received, first, start, loseJob, until, texts, streams } = await running(world)
    await loseJob()
    assert.deepEqual(await append(redis, first.engine, [step(first.claimed, 4, 5)]), ['fenced'])
    await until(async () => (await redis.command('EXISTS', jobKey(model, 'a'))) === 1)
    assert.equal((await start('other', { numerics: 'gpu' })).claimed, undefined)
    const { engine, claimed } = await start('second')
    assert.deepEqual(claimed.job, makeJob({ id: 'a', model }))
    assert.equal(claimed.journal[0]?.length, 4)
    await append(redis, engine, [step(claimed, 4, 6, true)])
    await world.until(() => received.ended !== null)
    assert.deepEqual([received.violations, received.texts, received.ended], [[], texts(6), { type: 'done', usage }])
    await streams.close()
  })

  test('a job that was lost before an engine began is queued again', async () => {
    const { redis, model, streams, read, start } = await running(world)
    const { received, attachment } = read({ id: 'b', origin: { job: makeJob({ id: 'b', model }), terms: {} } })
    attachment.admitted({ existed: false, generation: 1 }) // and Redis forgot it at once
    await world.pass(900)
    const { engine, claimed } = await start('second')
    assert.equal(claimed.job.id, 'b')
    await append(redis, engine, [step(claimed, 0, 2, true)])
    await world.until(() => received.ended !== null)
    assert.equal(received.ended?.type, 'done')
    assert.equal((await poolState(redis, model)).queued, 0)
    await streams.close()
  })

  test('an answer that came to another end than was delivered is taken back and continued', async () => {
    const { redis, received, start, loseTail, die, until, texts, streams, model } = await running(world)
    await loseTail(0)
    await die()
    const second = await start('second')
    const other: Token[] = [{ id: 9, text: 'other' }]
    const choices = [
      { choice: 0, from: 0, tokens: other, finish: { text: '', reason: 'stop' as const, stopReason: null } },
    ]
    await append(redis, second.engine, [{ id: 'a', epoch: second.claimed.epoch, choices, usage }])
    await until(async () => String(await redis.command('HGET', jobKey(model, 'a'), 'st')) === 'q')
    const third = await start('third')
    assert.equal(third.claimed.journal[0]?.length, 4)
    await append(redis, third.engine, [step(third.claimed, 4, 5, true)])
    await world.until(() => received.ended !== null)
    assert.deepEqual([received.violations, received.texts], [[], texts(5)])
    await streams.close()
  })

  test('without the job a reader whose request was lost ends with an explicit error', async () => {
    const { received, loseJob, streams } = await running(world, { holdsJob: false })
    await loseJob()
    await world.until(() => received.ended !== null)
    assert.equal(received.ended?.type === 'failed' && received.ended.code, 'internal_error')
    await streams.close()
  })

  test('only the newest reader repairs: an older one with another text ends with an explicit error', async () => {
    const { redis, model, received, start, loseTail, die, journal, streams } = await running(world)
    const gateway = 'newer'
    const found = await attach(redis, model, 'a', { gateway, tenant: 'acme' })
    assert.equal(found?.generation, 2)
    await loseTail(2)
    await die()
    const second = await start('second')
    await append(redis, second.engine, [
      { id: 'a', epoch: second.claimed.epoch, choices: [{ choice: 0, from: 2, tokens: [token(77)] }] },
    ])
    await world.until(() => received.ended !== null)
    assert.equal(received.ended?.type === 'failed' && received.ended.code, 'internal_error')
    assert.deepEqual((await journal()).length, 3)
    await streams.close()
  })
})
