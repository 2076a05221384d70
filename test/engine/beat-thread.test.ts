// The heartbeat in its own thread, against a real server.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startBeatThread } from '../../engine/beat-thread.ts'
import { Control } from '../../engine/control.ts'
import { systemClock } from '../../queue/clock.ts'
import { poolState } from '../../queue/models.ts'
import { connectRedis } from '../../queue/redis.ts'
import { makeEngine } from '../queue/jobs.ts'
import { noServer, testServer, untilOnSystemClock } from '../queue/servers.ts'

const LEASE_MS = 300

function start(redisUrl: string) {
  const seen = { beats: 0, errors: [] as Error[] }
  const heart = startBeatThread({
    redisUrl,
    identity: makeEngine('m'),
    control: new Control(),
    leaseMs: LEASE_MS,
    stepTimeoutMs: 5000,
    onBeat: () => seen.beats++,
    onStalled: () => assert.fail('stalled'),
    onError: (error) => seen.errors.push(error),
    onFailure: (error) => assert.fail(error),
  })
  return { heart, seen }
}

test('a main thread that is busy for several leases does not lose the lease', async (t) => {
  const server = await testServer()
  if (!server) return t.skip(noServer)
  t.after(() => server.close())
  const redis = await connectRedis(server.url)
  t.after(() => redis.close())
  const { heart, seen } = start(server.url)
  await heart.started
  assert.equal((await poolState(redis, 'm')).engines, 1)
  const end = systemClock.monotonic() + 4 * LEASE_MS
  while (systemClock.monotonic() < end);
  assert.equal((await poolState(redis, 'm')).engines, 1)
  await untilOnSystemClock(() => seen.beats >= 8)
  await heart.close()
  assert.deepEqual(seen.errors, [])
  await systemClock.sleep(LEASE_MS + 50)
  assert.equal((await poolState(redis, 'm')).engines, 0)
})

test('without a Redis the first beat fails with its address', async () => {
  const { heart } = start('redis://127.0.0.1:1')
  await assert.rejects(heart.started, /cannot use Redis at redis:\/\/127.0.0.1:1/)
})
