import assert from 'node:assert/strict'
import { test } from 'node:test'
import { append, beat, type Claimed, claim, reap } from '../../queue/consume.ts'
import { enqueue } from '../../queue/enqueue.ts'
import { encodeFinish, encodeToken } from '../../queue/event.ts'
import { gatewayChannel, heldKey, jobKey, journalKey, laneKey } from '../../queue/keys.ts'
import { poolState } from '../../queue/models.ts'
import { LEASE_MS, makeEngine, makeJob, plenty, step, stop, token, tokens, usage, wide } from './jobs.ts'
import { onBothServers, type World } from './servers.ts'

async function claimOne(world: World, fields: { n?: number } = {}) {
  const model = world.model()
  const engine = makeEngine(model)
  const messages: string[] = []
  await world.redis.subscribe(gatewayChannel(`gateway-of-${model}`), (message) => messages.push(message.toString()))
  await enqueue(world.redis, makeJob({ id: 'a', model, ...fields }), plenty)
  await beat(world.redis, engine, [], 0, LEASE_MS)
  const [claimed] = await claim(world.redis, engine, wide)
  assert.ok(claimed)
  const journal = async (choice = 0) =>
    ((await world.redis.command('LRANGE', journalKey(model, 'a', choice), 0, -1)) as Buffer[]).map(String)
  return { model, engine, claimed, messages, journal }
}

await onBothServers('the journal', (world) => {
  test('a job reaches the engine as it was enqueued', async () => {
    const { claimed, model } = await claimOne(world, { n: 2 })
    assert.deepEqual(claimed.job, makeJob({ id: 'a', model, n: 2 }))
    assert.deepEqual(claimed.journal, [[], []])
    assert.match(claimed.epoch, /^\d{16}$/)
  })

  test('appended tokens are one element each, and one message carries the same elements', async () => {
    const { engine, claimed, messages, journal } = await claimOne(world)
    assert.deepEqual(await append(world.redis, engine, [step(claimed, 0, 3)]), ['ok'])
    assert.deepEqual(await journal(), tokens(0, 3).map(encodeToken))
    await world.until(() => messages.length === 1)
    const elements = tokens(0, 3).map(({ id, text }) => [id, text])
    assert.deepEqual(JSON.parse(messages[0]!), [['a', claimed.epoch, [0], [[0, 0, elements]], null, 'rev1/cpu-plain']])
  })

  test('a repeated append changes nothing and is ok', async () => {
    const { engine, claimed, journal, messages } = await claimOne(world)
    for (let i = 0; i < 3; i++) assert.deepEqual(await append(world.redis, engine, [step(claimed, 0, 3)]), ['ok'])
    assert.equal((await journal()).length, 3)
    await world.until(() => messages.length === 1)
  })

  test('of an overlapping append only the new tokens are written and published', async () => {
    const { engine, claimed, journal, messages } = await claimOne(world)
    await append(world.redis, engine, [step(claimed, 0, 3)])
    assert.deepEqual(await append(world.redis, engine, [step(claimed, 1, 5)]), ['ok'])
    assert.deepEqual(await journal(), tokens(0, 5).map(encodeToken))
    await world.until(() => messages.length === 2)
    assert.equal(JSON.parse(messages[1]!)[0][3][0][1], 3)
  })

  test('an append beyond the end writes nothing and says where the gap begins', async () => {
    const { engine, claimed, journal } = await claimOne(world, { n: 2 })
    await append(world.redis, engine, [step(claimed, 0, 3)])
    const both = [0, 1].map((choice) => ({ choice, from: choice === 0 ? 3 : 2, tokens: tokens(3, 4) }))
    assert.deepEqual(await append(world.redis, engine, [{ id: 'a', epoch: claimed.epoch, choices: both }]), [
      { gapFrom: [3, 0] },
    ])
    assert.equal((await journal(0)).length, 3)
    assert.equal((await journal(1)).length, 0)
  })

  test('an append under another epoch, of another engine or of an unknown job is fenced', async () => {
    const { model, engine, claimed, journal } = await claimOne(world)
    const other = makeEngine(model, { id: 'engine-2' })
    const old: Claimed = { ...claimed, epoch: String(BigInt(claimed.epoch) - 1n) }
    const unknown: Claimed = { ...claimed, job: { ...claimed.job, id: 'nobody' } }
    assert.deepEqual(await append(world.redis, other, [step(claimed, 0, 1)]), ['fenced'])
    assert.deepEqual(await append(world.redis, engine, [step(old, 0, 1), step(unknown, 0, 1), step(claimed, 0, 1)]), [
      'fenced',
      'fenced',
      'ok',
    ])
    assert.equal((await journal()).length, 1)
  })

  test('the last append settles: nothing is held, pending or queued, and it may be repeated', async () => {
    const { model, engine, claimed, journal } = await claimOne(world)
    const last = step(claimed, 0, 2, true)
    assert.deepEqual(await append(world.redis, engine, [last]), ['ok'])
    assert.deepEqual(await append(world.redis, engine, [last]), ['ok'])
    assert.deepEqual(await journal(), [encodeToken(token(0)), encodeToken(token(1)), encodeFinish(stop)])
    const [state, ending, prompt] = (await world.redis.command(
      'HMGET',
      jobKey(model, 'a'),
      'st',
      'end',
      'p',
    )) as Buffer[]
    assert.deepEqual([String(state), JSON.parse(String(ending)), prompt], ['d', { usage }, null])
    assert.equal(await world.redis.command('EXISTS', heldKey(model, engine.id), laneKey(model, '10:rev1:t:acme')), 0)
    for (const key of [jobKey(model, 'a'), journalKey(model, 'a', 0)]) {
      const left = (await world.redis.command('PTTL', key)) as number
      assert.ok(left > 50_000 && left <= 60_000, `${key} expires in ${left} ms`)
    }
    const { queued, queuedTokens, running, desired } = await poolState(world.redis, model)
    assert.deepEqual([queued, queuedTokens, running, desired], [0, 0, 0, 0])
    assert.deepEqual(await claim(world.redis, engine, wide), [])
  })

  test('while a lane has other entries, settling one leaves nothing pending', async () => {
    const { model, engine, claimed } = await claimOne(world)
    await enqueue(world.redis, makeJob({ id: 'b', model }), plenty)
    await append(world.redis, engine, [step(claimed, 0, 1, true)])
    const pending = (await world.redis.command('XPENDING', laneKey(model, '10:rev1:t:acme'), 'engines')) as unknown[]
    assert.equal(pending[0], 0)
  })

  test('a step of several jobs for two gateways makes one message per gateway', async () => {
    const { model, engine, claimed, messages } = await claimOne(world)
    const elsewhere: string[] = []
    await world.redis.subscribe(gatewayChannel(`second-${model}`), (message) => elsewhere.push(message.toString()))
    await enqueue(world.redis, makeJob({ id: 'b', model }), plenty)
    await enqueue(world.redis, makeJob({ id: 'c', model, gateway: `second-${model}` }), plenty)
    const others = await claim(world.redis, engine, wide)
    await append(
      world.redis,
      engine,
      [claimed, ...others].map((one) => step(one, 0, 1)),
    )
    await world.until(() => messages.length === 1 && elsewhere.length === 1)
    assert.deepEqual(
      JSON.parse(messages[0]!).map(([id]: [string]) => id),
      ['a', 'b'],
    )
    assert.deepEqual(
      JSON.parse(elsewhere[0]!).map(([id]: [string]) => id),
      ['c'],
    )
  })

  test('an engine reports a job that cannot be run as failed', async () => {
    const { model, engine, claimed, messages } = await claimOne(world)
    const failed = { code: 'context_length_exceeded' as const, message: 'too "long"' }
    assert.deepEqual(await append(world.redis, engine, [{ id: 'a', epoch: claimed.epoch, choices: [], failed }]), [
      'ok',
    ])
    await world.until(() => messages.length === 1)
    assert.deepEqual(JSON.parse(messages[0]!)[0][4], failed)
    assert.equal(String(await world.redis.command('HGET', jobKey(model, 'a'), 'st')), 'f')
    assert.equal((await poolState(world.redis, model)).running, 0)
  })

  test('an entry that is not a job is failed by claim instead of going round', async () => {
    const { model, engine, messages } = await claimOne(world)
    await enqueue(world.redis, makeJob({ id: 'b', model }), plenty)
    await world.redis.command('HSET', jobKey(model, 'b'), 'spec', '{"id":7}')
    assert.deepEqual(await claim(world.redis, engine, wide), [])
    await world.until(() => messages.length === 1)
    assert.match(JSON.parse(messages[0]!)[0][4].message, /malformed/)
  })

  test('epochs grow even where the clock of Redis went back, and keep all their digits', async () => {
    const { model, engine } = await claimOne(world)
    const later = [
      ['7899999999999998', '7899999999999999'],
      ['7899999999999999', '7900000000000000'],
      ['9999999999999999', '10000000000000000'],
      ['123456789012345678909', '123456789012345678910'],
    ]
    for (const [i, [before, after]] of later.entries()) {
      await enqueue(world.redis, makeJob({ id: `later${i}`, model }), plenty)
      await world.redis.command('HSET', jobKey(model, `later${i}`), 'ep', before!)
      assert.equal((await claim(world.redis, engine, wide))[0]?.epoch, after)
    }
  })

  test('a zombie is fenced, and the next engine continues from the journal under a higher epoch', async () => {
    const { model, engine, claimed, journal } = await claimOne(world)
    await append(world.redis, engine, [step(claimed, 0, 3)])
    await world.pass(LEASE_MS + 10)
    assert.equal(await reap(world.redis, model), 1)
    assert.deepEqual(await append(world.redis, engine, [step(claimed, 3, 4)]), ['fenced'])

    const second = makeEngine(model, { id: 'engine-2' })
    await beat(world.redis, second, [], 0, LEASE_MS)
    const [again] = await claim(world.redis, second, wide)
    assert.deepEqual(again!.journal, [tokens(0, 3).map((token) => ({ token }))])
    assert.ok(again!.epoch > claimed.epoch)
    assert.deepEqual(await append(world.redis, engine, [step(claimed, 3, 4)]), ['fenced'])
    assert.deepEqual(await append(world.redis, second, [step(again!, 3, 5, true)]), ['ok'])
    assert.equal((await journal()).length, 6)
  })
})
