import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { systemClock } from '../../queue/clock.ts'
import { append, beat, claim } from '../../queue/consume.ts'
import { cancel, enqueue } from '../../queue/enqueue.ts'
import { RedisUnusable } from '../../queue/errors.ts'
import { poolState } from '../../queue/models.ts'
import { type ConnectOptions, connectRedis, type Redis } from '../../queue/redis.ts'
import { startRedisServer } from '../../queue/server.ts'
import { Streams } from '../../queue/stream.ts'
import { makeEngine, makeJob, plenty, Received, step, tokens, usage, wide } from './jobs.ts'
import { noServer, testServer, untilOnSystemClock as until } from './servers.ts'

const installed = await testServer()
await installed?.close()

/** A server of the test's own; it and the connections to it end with the test. */
async function startServer(t: TestContext, ...args: string[]) {
  const server = (await testServer({ args }))!
  t.after(() => server.close())
  const connect = async (options: ConnectOptions = {}): Promise<Redis> => {
    const redis = await connectRedis(server.url, options)
    t.after(() => redis.close())
    return redis
  }
  const open = async (redis: Redis): Promise<Streams> => {
    const streams = await Streams.open(redis, 'gateway-of-m', systemClock)
    t.after(() => streams.close())
    return streams
  }
  return { connect, open }
}

async function processId(redis: Redis): Promise<number> {
  return Number(/process_id:(\d+)/.exec(String(await redis.command('INFO', 'server')))?.[1])
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

test('a URL that is none and a server that is not there are named in one line', async () => {
  await assert.rejects(connectRedis('localhost:6379'), /must start with redis:\/\/, rediss:\/\/ or unix:\/\//)
  await assert.rejects(connectRedis('redis://user:secret@127.0.0.1:1'), (error: Error) => {
    assert.ok(error instanceof RedisUnusable)
    assert.match(error.message, /cannot use Redis at redis:\/\/…@127\.0\.0\.1:1: .*ECONNREFUSED/)
    assert.doesNotMatch(error.message, /secret/)
    return true
  })
})

test('without a server on the path there is none to start', async () => {
  assert.equal(await startRedisServer({ path: '/nonexistent:/tmp' }), null)
})

describe('a real server', { skip: installed === null && noServer }, () => {
  test('a server that evicts keys is refused with the command that cures it', async (t) => {
    const { connect } = await startServer(t, '--maxmemory-policy', 'allkeys-lru')
    await assert.rejects(connect(), /CONFIG SET maxmemory-policy noeviction/)
  })

  test('a server that cannot start says why', async () => {
    await assert.rejects(testServer({ args: ['--no-such-option', 'x'] }), /did not start[\s\S]*no-such-option/)
  })

  test('a server ends with the process that started it, even if that is killed', async () => {
    const program = `
      import { startRedisServer } from ${JSON.stringify(new URL('../../queue/server.ts', import.meta.url).href)}
      const { url } = await startRedisServer({ path: process.env.PATH })
      console.log(url)
      setInterval(() => {}, 1000)`
    const owner = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const url = String((await once(owner.stdout, 'data'))[0]).trim()
    const redis = await connectRedis(url)
    const pid = await processId(redis)
    await redis.close()
    owner.kill('SIGKILL')
    await until(() => !isAlive(pid))
    rmSync(dirname(url.replace('unix://', '')), { recursive: true })
  })

  test('scripts are loaded again after the server forgot them', async (t) => {
    const { connect } = await startServer(t)
    const redis = await connect()
    await poolState(redis, 'm')
    await redis.command('SCRIPT', 'FLUSH')
    assert.equal((await poolState(redis, 'm')).queued, 0)
  })

  test('a frozen server fails commands within their timeout and is used again when it wakes', async (t) => {
    const { connect } = await startServer(t)
    const redis = await connect({ commandTimeoutMs: 200 })
    const pid = await processId(redis)
    process.kill(pid, 'SIGSTOP')
    const start = systemClock.monotonic()
    await Promise.all([
      assert.rejects(poolState(redis, 'm'), /timed out/i),
      assert.rejects(redis.command('PING'), /timed out/i),
    ])
    const waited = systemClock.monotonic() - start
    assert.ok(waited >= 190 && waited < 1000, `${waited} ms`)
    process.kill(pid, 'SIGCONT')
    for (;;) {
      const pong = await redis.command('PING').catch(() => null)
      if (pong) break
      await systemClock.sleep(20)
    }
  })

  test('under maxmemory nothing is admitted, and what runs goes on to its end', async (t) => {
    const { connect, open } = await startServer(t, '--maxmemory', '6mb')
    const redis = await connect()
    const engine = makeEngine('m')
    const streams = await open(redis)
    const received = new Received()
    streams.attach({ id: 'a', model: 'm', n: 1 }, received.listener)
    for (const id of ['a', 'b', 'c']) await enqueue(redis, makeJob({ id, model: 'm' }), plenty)
    await beat(redis, engine, [], 0, 60_000)
    const [a] = await claim(redis, engine, { ...wide, sequences: 1 })
    const unbounded = { maxQueuedRequests: 1e9, maxQueuedTokens: 1e9 }
    const prompt = new Uint32Array(5000)
    let full = false
    for (let i = 0; !full; i++) {
      const admission = await enqueue(redis, makeJob({ id: `more${i}`, model: 'm', prompt }), unbounded)
      full = !admission.admitted
    }
    assert.deepEqual(await append(redis, engine, [step(a!, 0, 3)]), ['ok'])
    assert.deepEqual(await append(redis, engine, [step(a!, 3, 4, true)]), ['ok'])
    await cancel(redis, 'm', 'b')
    await beat(redis, engine, [], 1, 60_000)
    assert.equal((await claim(redis, engine, wide))[0]?.job.id, 'c')
    await until(() => received.ended !== null)
    assert.deepEqual(received.ids, [tokens(0, 4).map(({ id }) => id)])
  })

  test('killing subscriber and command connections in mid-stream loses nothing and repeats nothing', async (t) => {
    const { connect, open } = await startServer(t)
    const [gateway, worker, killer] = await Promise.all([connect(), connect(), connect()])
    const engine = makeEngine('m')
    const streams = await open(gateway)
    const length = 300
    const received = await Promise.all(
      Array.from({ length: 50 }, async (_, i) => {
        const one = new Received()
        streams.attach({ id: `s${i}`, model: 'm', n: 1 }, one.listener)
        await enqueue(gateway, makeJob({ id: `s${i}`, model: 'm' }), plenty)
        return one
      }),
    )
    await beat(worker, engine, [], 0, 60_000)
    const held = await claim(worker, engine, wide)
    assert.equal(held.length, 50)
    let kills = 0
    for (let at = 0; at < length; at++) {
      if (at % 50 === 25) kills += Number(await killer.command('CLIENT', 'KILL', 'TYPE', 'pubsub'))
      if (at % 100 === 50) kills += Number(await killer.command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes'))
      const entries = held.map((one) => step(one, at, at + 1, at === length - 1))
      for (;;) {
        const verdicts = await append(worker, engine, entries).catch(() => null)
        if (verdicts?.every((verdict) => verdict === 'ok')) break
        await systemClock.sleep(5)
      }
      await systemClock.sleep(1)
    }
    await until(() => received.every(({ ended }) => ended !== null))
    for (const one of received) {
      assert.deepEqual(one.violations, [])
      assert.deepEqual(one.ids, [tokens(0, length).map(({ id }) => id)])
      assert.deepEqual(one.ended, { type: 'done', usage })
    }
    assert.ok(kills >= 12, `${kills} connections were killed`)
  })
})
