import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { append, beat, type Claimed, claim, reap } from '../../queue/consume.ts'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import { cancel, enqueue } from '../../queue/enqueue.ts'
import { encodeToken } from '../../queue/event.ts'
import { gatewayChannel, jobKey, journalKey } from '../../queue/keys.ts'
import type { Redis } from '../../queue/redis.ts'
import { Streams } from '../../queue/stream.ts'
import { ManualClock } from './clock.ts'
import { LEASE_MS, makeEngine, makeJob, plenty, Received, step, stop, tokens, usage, wide } from './jobs.ts'
import { onBothServers, type World } from './servers.ts'

/** Loses messages of which `loses` says so; everything else goes through. */
function losing(redis: Redis, loses: () => boolean): Redis {
  return {
    command: (...args) => redis.command(...args),
    script: (...args) => redis.script(...args),
    subscribe: (channel, listener) => redis.subscribe(channel, (message) => loses() || listener(message)),
    onReconnect: (listener) => redis.onReconnect(listener),
    close: () => redis.close(),
  }
}

async function streaming(world: World, { n = 1, redis = world.redis } = {}) {
  const model = world.model()
  const engine = makeEngine(model)
  const streams = await Streams.open(redis, `gateway-of-${model}`, world.clock)
  const received = new Received()
  const attachment = streams.attach({ id: 'a', model, n }, received.listener)
  await enqueue(world.redis, makeJob({ id: 'a', model, n }), plenty)
  await beat(world.redis, engine, [], 0, LEASE_MS)
  const claimed = (await claim(world.redis, engine, wide))[0]!
  const claimBySecond = async (): Promise<Claimed> => {
    await world.pass(LEASE_MS + 10)
    await reap(world.redis, model)
    const second = makeEngine(model, { id: 'engine-2' })
    await beat(world.redis, second, [], 0, LEASE_MS)
    return (await claim(world.redis, second, wide))[0]!
  }
  /** Redis restarts from a state in which the journal ended after `length` tokens. */
  const loseTail = async (length: number) => {
    await world.redis.command('DEL', journalKey(model, 'a', 0))
    await world.redis.command('RPUSH', journalKey(model, 'a', 0), ...tokens(0, length).map(encodeToken))
  }
  const second = makeEngine(model, { id: 'engine-2' })
  return { model, engine, second, streams, received, attachment, claimed, claimBySecond, loseTail }
}

function assertComplete(received: Received, length: number): void {
  assert.deepEqual(received.violations, [])
  assert.deepEqual(received.ended, { type: 'done', usage })
  assert.deepEqual(received.ids, [tokens(0, length).map(({ id }) => id)])
  assert.deepEqual(received.texts, [
    `${tokens(0, length)
      .map(({ text }) => text)
      .join('')}.`,
  ])
}

await onBothServers('streams', (world) => {
  test('tokens, finish and usage arrive once each and in order, then nothing', async () => {
    const { engine, claimed, received, streams } = await streaming(world)
    for (let i = 0; i < 5; i++) await append(world.redis, engine, [step(claimed, i, i + 1)])
    await append(world.redis, engine, [step(claimed, 5, 6, true)])
    await world.until(() => received.ended !== null)
    assertComplete(received, 6)
    await streams.close()
  })

  test('choices advance and finish on their own', async () => {
    const { engine, claimed, received, streams } = await streaming(world, { n: 2 })
    const { epoch } = claimed
    const one = (choice: number, from: number, to: number) => ({ choice, from, tokens: tokens(from, to) })
    await append(world.redis, engine, [{ id: 'a', epoch, choices: [one(0, 0, 2), one(1, 0, 1)] }])
    await append(world.redis, engine, [{ id: 'a', epoch, choices: [{ ...one(1, 1, 1), finish: stop }] }])
    await append(world.redis, engine, [{ id: 'a', epoch, choices: [{ ...one(0, 2, 4), finish: stop }], usage }])
    await world.until(() => received.ended !== null)
    assert.deepEqual(received.violations, [])
    assert.deepEqual(received.texts, ['é0 é1 é2 é3 .', 'é0 .'])
    assert.equal(received.ended?.type, 'done')
    await streams.close()
  })

  test('the end of one choice that was lost is fetched before the request is done', async () => {
    let lose = false
    const { engine, claimed, received, streams } = await streaming(world, {
      n: 2,
      redis: losing(world.redis, () => lose),
    })
    const { epoch } = claimed
    const whole = (choice: number) => ({ choice, from: 0, tokens: tokens(0, 2), finish: stop })
    lose = true
    await append(world.redis, engine, [{ id: 'a', epoch, choices: [whole(1)] }])
    await world.pass(5)
    lose = false
    await append(world.redis, engine, [{ id: 'a', epoch, choices: [whole(0)], usage }])
    await world.until(() => received.ended !== null)
    assert.deepEqual(
      [received.texts, received.finished],
      [
        ['é0 é1 .', 'é0 é1 .'],
        ['stop', 'stop'],
      ],
    )
    assert.deepEqual([received.violations, received.ended?.type], [[], 'done'])
    await streams.close()
  })

  test('lost messages are made up for by the next message, and at the end by the poll', async () => {
    let lose = false
    const { engine, claimed, received, streams } = await streaming(world, { redis: losing(world.redis, () => lose) })
    await append(world.redis, engine, [step(claimed, 0, 1)])
    lose = true
    for (let i = 1; i < 5; i++) await append(world.redis, engine, [step(claimed, i, i + 1)])
    await world.pass(5)
    lose = false
    await append(world.redis, engine, [step(claimed, 5, 6)])
    await world.until(() => received.ids[0]?.length === 6)
    lose = true
    await append(world.redis, engine, [step(claimed, 6, 8, true)])
    await world.until(() => received.ended !== null)
    assertComplete(received, 8)
    await streams.close()
  })

  test('with every message lost the poll alone delivers everything', async () => {
    const { engine, claimed, received, streams } = await streaming(world, { redis: losing(world.redis, () => true) })
    await append(world.redis, engine, [step(claimed, 0, 4)])
    await world.until(() => received.ids[0]?.length === 4)
    await append(world.redis, engine, [step(claimed, 4, 6, true)])
    await world.until(() => received.ended !== null)
    assertComplete(received, 6)
    await streams.close()
  })

  test('another engine goes on where the first died, and the client sees one text', async () => {
    const { engine, second, claimed, received, claimBySecond, streams } = await streaming(world)
    await append(world.redis, engine, [step(claimed, 0, 3)])
    const again = await claimBySecond()
    assert.equal(again.journal[0]?.length, 3)
    await append(world.redis, second, [step(again, 3, 5)])
    await append(world.redis, engine, [step(claimed, 3, 9, true)])
    await append(world.redis, second, [step(again, 5, 6, true)])
    await world.until(() => received.ended !== null)
    assertComplete(received, 6)
    await streams.close()
  })

  test('when Redis loses its tail the engine sends it again and the client sees no seam', async () => {
    const { engine, claimed, received, loseTail, streams } = await streaming(world)
    await append(world.redis, engine, [step(claimed, 0, 4)])
    await world.until(() => received.ids[0]?.length === 4)
    await loseTail(2)
    assert.deepEqual(await append(world.redis, engine, [step(claimed, 4, 5)]), [{ gapFrom: [2] }])
    assert.deepEqual(await append(world.redis, engine, [step(claimed, 2, 5)]), ['ok'])
    await append(world.redis, engine, [step(claimed, 5, 6, true)])
    await world.until(() => received.ended !== null)
    assertComplete(received, 6)
    await streams.close()
  })

  test('a detached listener hears nothing more; a cancelled request is told so', async () => {
    const { model, engine, claimed, received, attachment, streams } = await streaming(world)
    attachment.detach()
    const again = new Received()
    streams.attach({ id: 'a', model, n: 1 }, again.listener)
    await append(world.redis, engine, [step(claimed, 0, 1)])
    await world.until(() => again.ids[0]?.length === 1)
    assert.deepEqual(received.ids, [])
    await cancel(world.redis, model, 'a')
    await world.until(() => again.ended !== null)
    assert.equal(again.ended?.type === 'failed' && again.ended.code, 'request_failed')
    await streams.close()
  })

  test('a reader that attaches late gets everything from the first token', async () => {
    const { model, engine, claimed, streams, attachment } = await streaming(world)
    attachment.detach()
    await append(world.redis, engine, [step(claimed, 0, 5)])
    await append(world.redis, engine, [step(claimed, 5, 6, true)])
    const late = new Received()
    streams.attach({ id: 'a', model, n: 1 }, late.listener)
    await world.until(() => late.ended !== null)
    assertComplete(late, 6)
    await streams.close()
  })

  test('many streams over a channel that loses half of its messages lose nothing and repeat nothing', async () => {
    const model = world.model()
    let seed = 1
    const chance = () => {
      seed = (seed * 48_271) % 2_147_483_647
      return seed / 2_147_483_647
    }
    const streams = await Streams.open(
      losing(world.redis, () => chance() < 0.5),
      `gateway-of-${model}`,
      world.clock,
    )
    const engines = ['x', 'y'].map((id) => makeEngine(model, { id }))
    for (const engine of engines) await beat(world.redis, engine, [], 0, 60_000)
    const received = await Promise.all(
      Array.from({ length: 40 }, async (_, i) => {
        const one = new Received()
        streams.attach({ id: `s${i}`, model, n: 1 }, one.listener)
        await enqueue(world.redis, makeJob({ id: `s${i}`, model }), plenty)
        return one
      }),
    )
    const held = await Promise.all(engines.map((engine) => claim(world.redis, engine, { ...wide, sequences: 20 })))
    for (let at = 0; at < 30; at++) {
      for (const [i, engine] of engines.entries()) {
        await append(
          world.redis,
          engine,
          held[i]!.map((one) => step(one, at, at + 1, at === 29)),
        )
      }
    }
    await world.until(() => received.every(({ ended }) => ended !== null))
    for (const one of received) assertComplete(one, 30)
    await streams.close()
  })
})

describe('streams on a clock', () => {
  test('a request that never reached the queue fails after ten seconds, not before', async () => {
    const clock = new ManualClock()
    const streams = await Streams.open(createEmbeddedRedis(clock), 'g', clock)
    const received = new Received()
    streams.attach({ id: 'a', model: 'm', n: 1 }, received.listener)
    await clock.advance(9_900)
    assert.deepEqual([received.ended], [null])
    await clock.advance(1_000)
    assert.equal(received.ended?.type === 'failed' && received.ended.code, 'internal_error')
  })

  test('an answer of the journal that is older than what was delivered since is harmless', async () => {
    const clock = new ManualClock()
    const inner = createEmbeddedRedis(clock)
    const held: (() => void)[] = []
    let lose = false
    const slow: Redis = {
      ...losing(inner, () => lose),
      script: async (name, keys, args) => {
        const reply = await inner.script(name, keys, args)
        if (name === 'fetch') await new Promise<void>((resolve) => held.push(resolve))
        return reply
      },
    }
    const engine = makeEngine('m')
    const streams = await Streams.open(slow, 'g', clock)
    const received = new Received()
    streams.attach({ id: 'a', model: 'm', n: 1 }, received.listener)
    await enqueue(inner, makeJob({ id: 'a', model: 'm', gateway: 'g' }), plenty)
    await beat(inner, engine, [], 0, 60_000)
    const claimed = (await claim(inner, engine, wide))[0]!
    await append(inner, engine, [step(claimed, 0, 2)])
    await clock.advance(600)
    assert.equal(held.length, 1)
    await append(inner, engine, [step(claimed, 2, 5)])
    lose = true
    await append(inner, engine, [step(claimed, 5, 6)])
    await clock.advance(1)
    lose = false
    await append(inner, engine, [step(claimed, 6, 7)])
    await clock.advance(1)
    assert.equal(received.ids[0]?.length, 5)
    held.shift()!()
    await clock.advance(1)
    held.shift()!()
    await clock.advance(1)
    assert.equal(received.ids[0]?.length, 7, 'the gap was seen while the first answer was awaited')
    await append(inner, engine, [step(claimed, 7, 8, true)])
    await clock.advance(1)
    assertComplete(received, 8)
  })

  test('an epoch that began after what was delivered is not trusted: one before it, never heard of, may be a fork', async () => {
    const clock = new ManualClock()
    const redis = createEmbeddedRedis(clock)
    const streams = await Streams.open(redis, 'g', clock)
    const received = new Received()
    streams.attach({ id: 'a', model: 'm', n: 1 }, received.listener)
    const say = (epoch: string, base: number, elements: unknown[]) => {
      const message = JSON.stringify([['a', epoch, [base], [[0, base, elements]], null]])
      return redis.command('PUBLISH', gatewayChannel('g'), message)
    }
    const tokens = [
      [1, 'a'],
      [2, 'b'],
    ]
    await say('20', 0, tokens)
    await clock.advance(1)
    // Redis lost both; epoch 30 began anew, and epoch 40 after it.
    await redis.command('HSET', jobKey('m', 'a'), 'st', 'r', 'ep', '40')
    await redis.command('RPUSH', journalKey('m', 'a', 0), '[5,"x"]', '[6,"y"]', '[7,"z"]')
    await say('40', 2, [[7, 'z']])
    await clock.advance(600)
    assert.deepEqual(received.ids, [[1, 2]])
  })

  test('a message of an older epoch is not applied, and an older state of Redis not believed', async () => {
    const clock = new ManualClock()
    const redis = createEmbeddedRedis(clock)
    const streams = await Streams.open(redis, 'g', clock)
    const received = new Received()
    streams.attach({ id: 'a', model: 'm', n: 1 }, received.listener)
    await redis.command('HSET', jobKey('m', 'a'), 'st', 'r', 'ep', '20')
    const say = (epoch: string, from: number, id: number) =>
      redis.command(
        'PUBLISH',
        gatewayChannel('g'),
        JSON.stringify([['a', epoch, [from], [[0, from, [[id, 'x']]]], null]]),
      )
    await say('20', 0, 1)
    await say('9', 1, 666)
    await say('20', 1, 2)
    await clock.advance(1)
    assert.deepEqual(received.ids, [[1, 2]])
    await redis.command('HSET', jobKey('m', 'a'), 'ep', '9')
    await redis.command('RPUSH', journalKey('m', 'a', 0), '[1,"x"]', '[2,"x"]')
    await clock.advance(600)
    await say('9', 2, 666)
    await say('20', 2, 3)
    await clock.advance(1)
    assert.deepEqual(received.ids, [[1, 2, 3]])
  })
})
