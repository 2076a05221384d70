// A request that kills whoever runs it, among others that do not.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { append, beat, claim, reap } from '../../queue/consume.ts'
import { enqueue } from '../../queue/enqueue.ts'
import { jobKey } from '../../queue/keys.ts'
import { deadLetters, poolState } from '../../queue/models.ts'
import { makeEngine, makeJob, plenty, step, wide } from './jobs.ts'
import { onBothServers, type World } from './servers.ts'

const SHORT_MS = 25

async function pool(world: World, ids: string[]) {
  const { redis } = world
  const model = world.model()
  for (const id of ids) await enqueue(redis, makeJob({ id, model }), plenty)
  /** A new engine claims; what it was given. */
  const life = async (id: string, leaseMs = SHORT_MS) => {
    const engine = makeEngine(model, { id })
    await beat(redis, engine, [], 0, leaseMs)
    const claims = await claim(redis, engine, wide)
    return { engine, claims, ids: claims.map(({ job }) => job.id) }
  }
  const bury = async () => {
    await world.pass(SHORT_MS + 10)
    await reap(redis, model)
  }
  return { redis, model, life, bury }
}

await onBothServers('the quarantine', (world) => {
  test('after one death the work goes on together, after a second each job alone', async () => {
    const { life, bury, redis } = await pool(world, ['a', 'b', 'c'])
    assert.deepEqual((await life('1')).ids, ['a', 'b', 'c'])
    await bury()
    assert.deepEqual((await life('2')).ids, ['a', 'b', 'c'])
    await bury()
    const { engine, ids, claims } = await life('3', 60_000)
    assert.deepEqual(ids, ['a'])
    assert.deepEqual(await claim(redis, engine, wide), [], 'nothing joins it')
    await append(redis, engine, [step(claims[0]!, 0, 1, true)])
    assert.deepEqual(
      (await claim(redis, engine, wide)).map(({ job }) => job.id),
      ['b'],
    )
  })

  test('a poison request among twenty ends after four deaths with its digest on the list, the others in full', async () => {
    const innocents = Array.from({ length: 20 }, (_, i) => `i${i}`)
    const { redis, model, life, bury } = await pool(world, [...innocents.slice(0, 7), 'poison', ...innocents.slice(7)])
    let deaths = 0
    const done: string[] = []
    for (let lives = 0; done.length < 20 || deaths < 4; lives++) {
      assert.ok(lives < 40, `${done.length} done after ${deaths} deaths`)
      const { engine, claims, ids } = await life(`life-${lives}`)
      if (ids.includes('poison')) {
        deaths++
        await bury()
        continue
      }
      for (const claimed of claims) await append(redis, engine, [step(claimed, 0, 1, true)])
      done.push(...ids)
    }
    assert.deepEqual([deaths, done.sort()], [4, innocents.sort()])
    const [letter, ...more] = await deadLetters(redis, model)
    assert.deepEqual(more, [])
    assert.deepEqual([letter?.id, letter?.tenant, letter?.deaths, letter?.revision], ['poison', 'acme', 4, 'rev1'])
    assert.match(letter!.digest, /^[0-9a-f]{40}$/)
    assert.match(String(await redis.command('HGET', jobKey(model, 'poison'), 'end')), /request_failed/)
    const { queued, running } = await poolState(redis, model)
    assert.deepEqual([queued, running], [0, 0])
  })

  test('busy engines do not starve a suspect: one of them, and only one, is given nothing more until it is idle', async () => {
    const { redis, model, life, bury } = await pool(world, ['suspect'])
    for (const id of ['1', '2']) {
      assert.deepEqual((await life(id)).ids, ['suspect'])
      await bury()
    }
    const busy = ['x', 'y'].map((id) => makeEngine(model, { id }))
    // Busy before it came: they hold work that an idle engine would not have been given first.
    await redis.command('HSET', jobKey(model, 'suspect'), 'class', '10')
    for (const engine of busy) await beat(redis, engine, [], 0, 60_000)
    const ward = await claim(redis, busy[0]!, wide)
    assert.deepEqual(
      ward.map(({ job }) => job.id),
      ['suspect'],
    )
    await enqueue(redis, makeJob({ id: 'a', model }), plenty)
    assert.deepEqual(await claim(redis, busy[0]!, wide), [], 'nothing joins a suspect')
    const [other] = await claim(redis, busy[1]!, wide)
    assert.equal(other?.job.id, 'a')
    await world.pass(700)
    await beat(redis, busy[0]!, [], 1, 60_000) // its claim was lost: the suspect waits again
    await enqueue(redis, makeJob({ id: 'b', model }), plenty)
    assert.deepEqual(await claim(redis, busy[1]!, wide), [], 'the ward')
    const third = makeEngine(model, { id: 'z' })
    await beat(redis, third, [], 0, 60_000)
    assert.deepEqual(
      (await claim(redis, third, wide)).map(({ job }) => job.id),
      ['suspect'],
      'an idle one takes it',
    )
    assert.deepEqual(
      (await claim(redis, busy[1]!, wide)).map(({ job }) => job.id),
      ['b'],
      'the ward serves again',
    )
  })
})
