// What the simulation adds to the embedded server: going back to an earlier state, whole and as often as asked.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import { ManualClock } from './clock.ts'

const writes = [
  ['SET', 'string', 'a'],
  ['HSET', 'hash', 'f', '1', 'g', '2'],
  ['RPUSH', 'list', 'a', 'b'],
  ['ZADD', 'set', '2', 'b', '1', 'a'],
  ['XGROUP', 'CREATE', 'stream', 'g', '0', 'MKSTREAM'],
  ['XADD', 'stream', '1-0', 'k', 'v'],
  ['XADD', 'stream', '2-0', 'k', 'w'],
  ['XREADGROUP', 'GROUP', 'g', 'c', 'COUNT', '1', 'STREAMS', 'stream', '>'],
  ['PEXPIRE', 'list', '1000'],
]
const changes = [
  ['SET', 'string', 'z'],
  ['HDEL', 'hash', 'f'],
  ['HSET', 'hash', 'h', '3'],
  ['RPUSH', 'list', 'c'],
  ['ZREM', 'set', 'a'],
  ['ZADD', 'set', '0', 'c'],
  ['XREADGROUP', 'GROUP', 'g', 'c', 'COUNT', '1', 'STREAMS', 'stream', '>'],
  ['XACK', 'stream', 'g', '1-0'],
  ['XDEL', 'stream', '1-0'],
  ['XADD', 'stream', '3-0', 'k', 'x'],
  ['PEXPIRE', 'list', '10'],
  ['PEXPIRE', 'hash', '10'],
  ['SET', 'another', 'key'],
]
const reads = [
  ['GET', 'string'],
  ['HMGET', 'hash', 'f', 'g', 'h'],
  ['PTTL', 'hash'],
  ['LRANGE', 'list', '0', '-1'],
  ['PTTL', 'list'],
  ['ZRANGE', 'set', '0', '-1', 'WITHSCORES'],
  ['XRANGE', 'stream', '-', '+'],
  ['XPENDING', 'stream', 'g'],
  ['EXISTS', 'another'],
]

test('a server goes back to what it was: values, expiries, groups and what was delivered; and again', async () => {
  const redis = createEmbeddedRedis(new ManualClock())
  const run = async (commands: string[][]) => {
    const replies = []
    for (const [name, ...args] of commands) replies.push(await redis.command(name!, ...args))
    return JSON.stringify(replies)
  }
  await run(writes)
  const before = await run(reads)
  const names = redis.keys()
  const restore = redis.snapshot()
  for (let time = 0; time < 2; time++) {
    await run(changes)
    assert.notEqual(await run(reads), before)
    restore()
    assert.equal(await run(reads), before)
    assert.deepEqual(redis.keys(), names)
  }
  const delivered = await redis.command('XREADGROUP', 'GROUP', 'g', 'c', 'STREAMS', 'stream', '>')
  assert.match(JSON.stringify(delivered), /50,45,48/, 'entry 2-0 was not delivered before the snapshot')
})

test('a key whose time ran out since is gone after going back', async () => {
  const clock = new ManualClock()
  const redis = createEmbeddedRedis(clock)
  await redis.command('SET', 'a', '1')
  await redis.command('PEXPIRE', 'a', '50')
  const restore = redis.snapshot()
  await clock.advance(60)
  restore()
  assert.deepEqual(redis.keys(), [])
})
