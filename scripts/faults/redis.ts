// Rows of a Redis that dies, freezes, slows down, fills up or forgets. Streams must end exact; new requests get a quick
// 503 while the queue cannot be reached.
import assert from 'node:assert/strict'
import { ask, longestGap, resumes } from './client.ts'
import { get, type Lab, pause, until } from './lab.ts'
import { exact, greedy, launch, nothingLeft, type Row, reference } from './row.ts'

const fake = { model: 'fake-i20' }

/** A gateway and a fake engine, each behind a proxy to Redis, and streams of some seconds under way. */
async function underWay(lab: Lab, { streams = 20, tokens = 250, redisFlags = [] as string[] } = {}) {
  await lab.startRedis(...redisFlags)
  const [gatewayLink, engineLink] = [await lab.via(), await lab.via()]
  await lab.fake(20, { url: engineLink.url })
  const gateway = await lab.gateway({ url: gatewayLink.url })
  const bodies = Array.from({ length: streams }, (_, i) => greedy(i, tokens, fake))
  const expected = await reference(gateway, bodies)
  const { started, all } = launch([gateway], bodies)
  await started
  return { gateway, gatewayLink, engineLink, bodies, expected, all }
}

type Setting = Awaited<ReturnType<typeof underWay>>

async function judge(lab: Lab, { bodies, expected, all }: Setting, at: number) {
  const answers = await all
  const outcome = { ...exact(bodies, answers, expected), resume: resumes(answers, at) }
  await nothingLeft(lab, 'fake-i20')
  return { outcome, answers }
}

const killed: Row = {
  id: 'F14',
  fault: 'redis-server kill -9 and restart, AOF everysec',
  quick: true,
  async run(lab) {
    const setting = await underWay(lab)
    const at = performance.now()
    await lab.redis.kill('SIGKILL')
    const refused = await ask(setting.gateway.port, greedy(0, 5, fake))
    assert.equal(refused.status, 503, 'a new request while Redis is down')
    assert.equal(refused.headers['x-should-retry'], 'true')
    assert.ok(refused.ms < 1000, `refused after ${refused.ms.toFixed(0)} ms`)
    await pause(1000)
    await lab.redis.restart()
    const { outcome } = await judge(lab, setting, at)
    return { ...outcome, says: `503 after ${refused.ms.toFixed(0)} ms; down for 1 s` }
  },
}

const rolledBack: Row = {
  id: 'F15',
  fault: 'Redis loses its last second (older AOF restored)',
  async run(lab) {
    const setting = await underWay(lab)
    await pause(1200)
    const copy = lab.snapshotRedis()
    await pause(1000)
    const at = performance.now()
    await lab.restoreRedis(copy)
    const { outcome } = await judge(lab, setting, at)
    return outcome
  },
}

const frozen: Row = {
  id: 'F16',
  fault: 'Redis SIGSTOPped 10 s',
  async run(lab) {
    const setting = await underWay(lab)
    const at = performance.now()
    await lab.redis.kill('SIGSTOP')
    const refused = await ask(setting.gateway.port, greedy(0, 5, fake))
    assert.equal(refused.status, 503)
    assert.ok(refused.ms < 3000, `a new request was answered after ${refused.ms.toFixed(0)} ms`)
    await pause(10_000 - refused.ms)
    await lab.redis.kill('SIGCONT')
    const { outcome } = await judge(lab, setting, at)
    return { ...outcome, says: `503 after ${refused.ms.toFixed(0)} ms` }
  },
}

const slow: Row = {
  id: 'F17',
  fault: 'Redis 200 ms ± 100 ms away from engine and gateway',
  async run(lab) {
    const setting = await underWay(lab, { tokens: 150 })
    const at = performance.now()
    for (const { proxy } of [setting.gatewayLink, setting.engineLink]) {
      proxy.set('up', { latencyMs: 100, jitterMs: 50 })
      proxy.set('down', { latencyMs: 100, jitterMs: 50 })
    }
    const { outcome, answers } = await judge(lab, setting, at)
    const longest = Math.max(...answers.map(longestGap))
    assert.ok(longest < 1500, `a stream was silent for ${longest.toFixed(0)} ms`)
    return { ...outcome, resume: [], says: `longest silence ${longest.toFixed(0)} ms` }
  },
}

const full: Row = {
  id: 'F18',
  fault: 'Redis at maxmemory, noeviction',
  async run(lab) {
    const setting = await underWay(lab, { tokens: 150 })
    const redis = await lab.control()
    const at = performance.now()
    await redis.command('CONFIG', 'SET', 'maxmemory', '1000000')
    const refused = await ask(setting.gateway.port, greedy(0, 5, fake))
    assert.equal(refused.status, 503)
    assert.equal(refused.error, 'queue_full')
    assert.ok(refused.headers['retry-after'], 'retry-after')
    const { outcome } = await judge(lab, setting, at)
    await redis.command('CONFIG', 'SET', 'maxmemory', '0')
    const after = await ask(setting.gateway.port, greedy(0, 5, fake))
    assert.ok(after.done, 'a request after memory was freed')
    return { ...outcome, resume: [], says: '503 queue_full for new ones' }
  },
}

const evicting: Row = {
  id: 'F19',
  fault: 'Redis with an eviction policy',
  quick: true,
  async run(lab) {
    await lab.startRedis('--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru')
    await assert.rejects(lab.gateway(), /maxmemory-policy is "allkeys-lru".*CONFIG SET maxmemory-policy noeviction/s)
    await assert.rejects(lab.fake(20), /maxmemory-policy is "allkeys-lru"/)
    return { says: 'gateway and engine refuse to start' }
  },
}

const subscriberKilled: Row = {
  id: 'F22',
  fault: 'subscriber connection killed five times between tokens',
  quick: true,
  async run(lab) {
    const setting = await underWay(lab, { streams: 50, tokens: 200 })
    const redis = await lab.control()
    const at = performance.now()
    for (let i = 0; i < 5; i++) {
      await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
      await pause(400)
    }
    const { outcome, answers } = await judge(lab, setting, at)
    const longest = Math.max(...answers.map(longestGap))
    assert.ok(longest <= 700, `a gap of ${longest.toFixed(0)} ms`)
    return { ...outcome, resume: [], says: `longest gap ${longest.toFixed(0)} ms` }
  },
}

const lostReplies: Row = {
  id: 'F23',
  fault: 'replies of claims and appends lost, commands sent again',
  async run(lab) {
    const setting = await underWay(lab, { tokens: 300 })
    const at = performance.now()
    // The engine's words reach Redis, its answers do not; then the connection breaks.
    for (let i = 0; i < 5; i++) {
      setting.engineLink.proxy.set('down', { blackhole: true })
      await pause(150)
      setting.engineLink.proxy.reset()
      setting.engineLink.proxy.heal()
      await pause(250)
    }
    const late = await ask(setting.gateway.port, greedy(0, 5, fake))
    assert.ok(late.done, 'a request after the faults')
    const { outcome } = await judge(lab, setting, at)
    return { ...outcome, resume: [] }
  },
}

const gatewayCutOff: Row = {
  id: 'F46',
  fault: 'gateway partitioned from Redis some seconds, clients reach it',
  async run(lab) {
    const setting = await underWay(lab, { tokens: 400 })
    const at = performance.now()
    const { proxy } = setting.gatewayLink
    proxy.set('both', { blackhole: true })
    const [refused, ready] = await Promise.all([
      ask(setting.gateway.port, greedy(0, 5, fake)),
      get(setting.gateway.port, '/ready'),
    ])
    assert.equal(refused.status, 503)
    assert.equal(ready.status, 503, '/ready')
    await pause(2500)
    // A client whose call of the queue timed out was told to try again; its job must not run.
    proxy.heal()
    const { outcome } = await judge(lab, setting, at)
    return { ...outcome, says: `503 after ${refused.ms.toFixed(0)} ms` }
  },
}

const engineCutOff: Row = {
  id: 'F47',
  fault: 'engine partitioned from Redis 5 s, its compute fine',
  async run(lab) {
    const setting = await underWay(lab, { tokens: 400 })
    await lab.fake(20)
    const at = performance.now()
    setting.engineLink.proxy.set('both', { blackhole: true })
    await pause(5000)
    setting.engineLink.proxy.heal()
    const { outcome } = await judge(lab, setting, at)
    assert.ok(Math.max(...outcome.resume) < 2500, 'the work moves when the lease has run out')
    return outcome
  },
}

const reaperDies: Row = {
  id: 'F48',
  fault: 'the engine that reaps dies together with the one it watches',
  async run(lab) {
    await lab.startRedis()
    const engines = [await lab.fake(20), await lab.fake(20)]
    const gateway = await lab.gateway()
    const bodies = Array.from({ length: 20 }, (_, i) => greedy(i, 150, fake))
    const expected = await reference(gateway, bodies)
    const { started, all } = launch([gateway], bodies)
    await started
    const at = performance.now()
    for (const engine of engines) await engine.kill('SIGKILL')
    await pause(500)
    await lab.fake(20)
    const answers = await all
    await nothingLeft(lab, 'fake-i20')
    return { ...exact(bodies, answers, expected), resume: resumes(answers, at) }
  },
}

const diskFull: Row = {
  id: 'F30',
  fault: 'the disk under the AOF is full (RLIMIT_FSIZE)',
  async run(lab) {
    const setting = await underWay(lab, { tokens: 150 })
    const redis = await lab.control()
    const at = performance.now()
    const limit = (bytes: string) => lab.limitFileSize(lab.redis.pid, bytes)
    await limit('1024')
    await until(
      () => 'a write of Redis to fail',
      async () => {
        const info = String(await redis.command('INFO', 'persistence'))
        return /aof_last_write_status:err/.test(info)
      },
      8000,
    )
    const refused = await ask(setting.gateway.port, greedy(0, 5, fake))
    assert.equal(refused.status, 503, 'a request that could not be kept')
    await limit('unlimited')
    const { outcome } = await judge(lab, setting, at)
    const after = await ask(setting.gateway.port, greedy(0, 5, fake))
    assert.ok(after.done, 'a request after space came back')
    return outcome
  },
}

export const redisRows: Row[] = [
  killed,
  rolledBack,
  frozen,
  slow,
  full,
  evicting,
  subscriberKilled,
  lostReplies,
  diskFull,
  gatewayCutOff,
  engineCutOff,
  reaperDies,
]
