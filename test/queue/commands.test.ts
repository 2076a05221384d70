import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import { connectRedis, type Redis } from '../../queue/redis.ts'
import { ManualClock } from './clock.ts'
import { dice } from './recorder.ts'
import { noServer, testServer } from './servers.ts'

const keys = ['k1', 'k2', 'k3', 'k4']
const values = ['a', 'b', 'é', '', '10', '-3', 'x y', '1.5', '99999999999999999999']
const scores = ['1', '-2', '1.5', 'inf', '-inf', '3', '1', '6966505673424896', 'nan?', '1e3']
const ranks = ['0', '1', '-1', '-2', '5', '-100', 'x']
const ids = ['1', '2-1', '3', '5-0', '7', '10-2', '0-0', 'bad', '4']
const bounds = ['-inf', '+inf', '(1', '1', '3', '(1.5', 'x']

/** Shapes of calls; upper case words stand for themselves. */
const shapes: (keyof typeof words | (string & {}))[][] = [
  ['SET', 'key', 'value'],
  ['GET', 'key'],
  ['DEL', 'key', 'key'],
  ['EXISTS', 'key', 'key', 'key'],
  ['PEXPIRE', 'key', 'lifetime'],
  ['HSET', 'key', 'value', 'value'],
  ['HSET', 'key', 'value', 'value', 'value'],
  ['HSET', 'key', 'value', 'value', 'value', 'value'],
  ['HGET', 'key', 'value'],
  ['HMGET', 'key', 'value', 'value'],
  ['HDEL', 'key', 'value', 'value'],
  ['HINCRBY', 'key', 'value', 'value'],
  ['HVALS', 'key'],
  ['RPUSH', 'key', 'value', 'value'],
  ['LLEN', 'key'],
  ['LRANGE', 'key', 'rank', 'rank'],
  ['ZADD', 'key', 'score', 'value'],
  ['ZADD', 'key', 'NX', 'score', 'value', 'score', 'value'],
  ['ZADD', 'key', 'score', 'value', 'score'],
  ['ZREM', 'key', 'value', 'value'],
  ['ZSCORE', 'key', 'value'],
  ['ZCARD', 'key'],
  ['ZCOUNT', 'key', 'bound', 'bound'],
  ['ZRANGE', 'key', 'rank', 'rank'],
  ['ZRANGE', 'key', 'rank', 'rank', 'WITHSCORES'],
  ['ZRANGEBYSCORE', 'key', 'bound', 'bound'],
  ['ZRANGEBYSCORE', 'key', 'bound', 'bound', 'LIMIT', 'rank', 'rank'],
  ['XADD', 'key', 'id', 'value', 'value'],
  ['XADD', 'key', 'id', 'value', 'value', 'value'],
  ['XDEL', 'key', 'id', 'id'],
  ['XLEN', 'key'],
  ['XRANGE', 'key', '-', '+'],
  ['XRANGE', 'key', 'id', '+', 'COUNT', 'rank'],
  ['XRANGE', 'key', '(2-1', 'id'],
  ['XGROUP', 'CREATE', 'key', 'g', '0', 'MKSTREAM'],
  ['XGROUP', 'CREATE', 'key', 'h', '$'],
  ['XREADGROUP', 'GROUP', 'g', 'c1', 'COUNT', '1', 'STREAMS', 'key', '>'],
  ['XREADGROUP', 'GROUP', 'h', 'c2', 'COUNT', '2', 'STREAMS', 'key', '>'],
  ['XACK', 'key', 'g', 'id', 'id'],
  ['XPENDING', 'key', 'g'],
  ['DBSIZE'],
  ['FLUSHALL'],
  ['GET'],
  ['HSET', 'key'],
]
const words = {
  key: keys,
  value: values,
  score: scores,
  rank: ranks,
  id: ids,
  bound: bounds,
  lifetime: ['0', '-5', '900000'],
}

async function outcome(redis: Redis, call: string[]): Promise<string> {
  try {
    const reply = await redis.command(...(call as [string]))
    return JSON.stringify(reply, (_, part) =>
      part?.type === 'Buffer' ? Buffer.from(part.data).toString('latin1') : part,
    )
  } catch (error) {
    return `error: ${(error as Error).message}`
  }
}

const server = await testServer()

describe('the embedded commands', () => {
  test('answer 20,000 random calls, errors included, as a real server does', {
    skip: server === null && noServer,
  }, async (t) => {
    const real = await connectRedis(server!.url)
    t.after(async () => {
      await real.close()
      await server!.close()
    })
    const embedded = createEmbeddedRedis(new ManualClock())
    const roll = dice(7)
    const pick = <T>(list: readonly T[]): T => list[roll(list.length)]!
    const calls = Array.from({ length: 20_000 }, () => {
      const shape = roll(60) === 0 ? ['FLUSHALL'] : pick(shapes)
      return shape.map((word) => (word in words ? pick(words[word as keyof typeof words]) : word))
    })
    const replies = await Promise.all(calls.map((call) => outcome(real, call)))
    for (const [i, call] of calls.entries()) assert.equal(await outcome(embedded, call), replies[i], `${i}: ${call}`)
  })

  test('keys expire by the clock, and scripts need not touch them for that', async () => {
    const clock = new ManualClock()
    const redis = createEmbeddedRedis(clock)
    await redis.command('SET', 'a', '1')
    await redis.command('PEXPIRE', 'a', 100)
    await clock.advance(99)
    assert.equal(await redis.command('PTTL', 'a'), 1)
    await clock.advance(1)
    assert.equal(await redis.command('GET', 'a'), null)
    assert.equal(await redis.command('DBSIZE'), 0)
  })

  test('what is not embedded is refused by name', async () => {
    const redis = createEmbeddedRedis(new ManualClock())
    await assert.rejects(redis.command('BLPOP', 'k', '0'), /embedded Redis has no command BLPOP/)
    await assert.rejects(redis.command('constructor'), /no command CONSTRUCTOR/)
  })

  test('a closed one says so', async () => {
    const redis = createEmbeddedRedis(new ManualClock())
    await redis.close()
    await assert.rejects(redis.command('PING'), /closed/)
  })
})
