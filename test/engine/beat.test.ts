// The heartbeat against the embedded Redis: the lease follows the engine's progress.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Beat } from '../../engine/beat.ts'
import { Control } from '../../engine/control.ts'
import { claim } from '../../queue/consume.ts'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import { cancel, enqueue } from '../../queue/enqueue.ts'
import { poolState } from '../../queue/models.ts'
import { ManualClock } from '../queue/clock.ts'
import { makeEngine, makeJob, plenty, wide } from '../queue/jobs.ts'

async function start() {
  const clock = new ManualClock()
  const redis = createEmbeddedRedis(clock)
  const identity = makeEngine('m')
  const control = new Control()
  const seen = { beats: 0, cancelled: [] as string[], stalls: 0 }
  const beat = new Beat({
    redis,
    identity,
    control,
    clock,
    leaseMs: 300,
    stepTimeoutMs: 5000,
    onBeat: (cancelled) => {
      seen.beats++
      seen.cancelled.push(...cancelled)
    },
    onStalled: () => seen.stalls++,
    onError: (error) => assert.fail(error),
  })
  await beat.started
  const engines = async () => (await poolState(redis, 'm')).engines
  return { clock, redis, identity, control, beat, seen, engines }
}

/** As the engine thread does, but the step never ends. */
function hang(control: Control) {
  try {
    control.step(() => {
      throw new Error('never returns')
    })
  } catch {}
}

test('an idle engine keeps its lease', async () => {
  const { clock, engines, seen } = await start()
  await clock.advance(3000)
  assert.equal(await engines(), 1)
  assert.equal(seen.beats, 31)
})

test('an engine whose steps move keeps its lease; a step may take longer than the lease', async () => {
  const { clock, engines, control } = await start()
  for (let i = 0; i < 10; i++) {
    control.step(() => {})
    hang(control)
    await clock.advance(1000)
  }
  assert.equal(await engines(), 1)
})

test('a step that never ends costs the lease, and is reported once', async () => {
  const { clock, engines, control, seen } = await start()
  hang(control)
  await clock.advance(5200)
  assert.equal(seen.stalls, 1)
  await clock.advance(400)
  assert.equal(await engines(), 0)
  await clock.advance(1000)
  assert.equal(seen.stalls, 1)
})

test('held jobs that were cancelled are told; those not held go back to the queue', async () => {
  const { clock, redis, identity, beat, seen } = await start()
  for (const id of ['a', 'b']) await enqueue(redis, makeJob({ id, model: 'm' }), plenty)
  assert.equal((await claim(redis, identity, wide)).length, 2)
  beat.hold('a')
  await cancel(redis, 'm', 'a')
  await clock.advance(1000)
  assert.deepEqual([...new Set(seen.cancelled)], ['a'])
  assert.equal((await poolState(redis, 'm')).queued, 1)
})

test('after close nothing is renewed', async () => {
  const { clock, engines, beat } = await start()
  await beat.close()
  await clock.advance(400)
  assert.equal(await engines(), 0)
})
