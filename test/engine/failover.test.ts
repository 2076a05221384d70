// Daemons, beats and the queue's own scripts on the embedded Redis, with engines that need no model: jobs move between
// engines and their journals end as if nothing had happened.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Beat } from '../../engine/beat.ts'
import { Control } from '../../engine/control.ts'
import { Daemon, type Queue } from '../../engine/daemon.ts'
import { EngineMetrics } from '../../engine/metrics.ts'
import { OutputProcessor } from '../../engine/output/processor.ts'
import type { Clock } from '../../queue/clock.ts'
import { append, claim, control, doorbell, reap, release } from '../../queue/consume.ts'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import { cancel, enqueue } from '../../queue/enqueue.ts'
import type { Event } from '../../queue/event.ts'
import { poolState } from '../../queue/models.ts'
import type { Redis } from '../../queue/redis.ts'
import { Streams } from '../../queue/stream.ts'
import { alphabetVocab, EngineDouble, LETTERS, tokenAt } from '../doubles/engine.ts'
import { ManualClock } from '../queue/clock.ts'
import { makeEngine, makeJob, plenty } from '../queue/jobs.ts'

const LEASE_MS = 300
const LENGTH = 40

/** One engine process: what main.ts puts together. */
async function startEngine(redis: Redis, clock: Clock, id: string) {
  const identity = makeEngine('m', { id })
  const engine = new EngineDouble()
  let isDead = false
  /** A dead process says nothing any more. */
  const alive = <T>(run: () => Promise<T>): Promise<T> => (isDead ? new Promise<T>(() => {}) : run())
  const queue: Queue = {
    claim: (room) => alive(() => claim(redis, identity, room)),
    append: (step) => alive(() => append(redis, identity, step)),
    release: (held) => release(redis, identity, held),
    reap: () => alive(() => reap(redis, 'm')),
    doorbell: (ring) => doorbell(redis, 'm', ring),
    control: (on) => control(redis, identity.id, on),
    onReconnect: () => () => {},
  }
  const fail = (error: Error) => assert.fail(error)
  const beat = new Beat({
    redis,
    identity,
    control: new Control(),
    clock,
    leaseMs: LEASE_MS,
    stepTimeoutMs: 5000,
    onBeat: (cancelled) => {
      for (const job of cancelled) daemon.drop(job)
    },
    onStalled: () => assert.fail('stalled'),
    onError: fail,
  })
  await beat.started
  const capacity = { blocks: 100, blockSize: 16, kvTokens: 1600, maxModelLength: 1600 }
  const daemon = new Daemon({
    queue,
    engine,
    clock,
    processor: new OutputProcessor(alphabetVocab),
    metrics: new EngineMetrics({ model: 'm', engine: id }, { capacity, kvCacheDtype: 'float32' }, true),
    heart: beat,
    random: () => 0.5,
    limits: { maxNumSeqs: 8, kvTokens: 1600, blockSize: 16 },
    stats: engine.stats(),
    leaseMs: LEASE_MS,
    onError: fail,
    onFailure: fail,
  })
  await daemon.start()
  const kill = async () => {
    isDead = true
    await beat.close()
  }
  return {
    engine,
    daemon,
    beat,
    kill,
    get isDead() {
      return isDead
    },
  }
}

async function startWorld() {
  const clock = new ManualClock()
  const redis = createEmbeddedRedis(clock)
  const streams = await Streams.open(redis, 'gateway-of-m', clock)
  const events = new Map<string, Event[]>()
  const send = async (id: string, n = 1) => {
    const job = makeJob({ id, model: 'm', n, maxTokens: LENGTH, prompt: Uint32Array.from([id.charCodeAt(0)]) })
    const seen: Event[] = []
    events.set(id, seen)
    streams.attach({ id, model: 'm', n }, (event) => seen.push(event))
    await enqueue(redis, { ...job, sampling: { ...job.sampling, stop: [] } }, plenty)
    return job
  }
  return { clock, redis, events, send }
}

/** The tokens of a choice in the order they came; throws where one is missing or came twice. */
function tokensOf(events: Event[], choice = 0): { ids: number[]; text: string } {
  const ids: number[] = []
  let text = ''
  for (const event of events) {
    if (event.type !== 'tokens' || event.choice !== choice) continue
    assert.equal(event.from, ids.length)
    ids.push(...event.tokens.map((token) => token.id))
    text += event.tokens.map((token) => token.text).join('')
  }
  return { ids, text }
}

const whole = (prompt: Uint32Array, choice = 0) => Array.from({ length: LENGTH }, (_, i) => tokenAt(prompt, choice, i))

test('the work of an engine that dies is finished by another, token for token', async () => {
  const { clock, redis, events, send } = await startWorld()
  const first = await startEngine(redis, clock, 'first')
  const jobs = [await send('a'), await send('b', 2), await send('c')]
  await clock.advance(10)
  const second = await startEngine(redis, clock, 'second')
  for (let i = 0; i < 100; i++) {
    if (i === 13) await first.kill()
    if (!first.isDead) await first.engine.step()
    await second.engine.step()
    await clock.advance(20)
  }
  for (const job of jobs) {
    const seen = events.get(job.id)!
    for (let choice = 0; choice < job.sampling.n; choice++) {
      const { ids, text } = tokensOf(seen, choice)
      assert.deepEqual(ids, whole(job.prompt, choice))
      assert.equal(text, ids.map((id) => LETTERS[id]).join(''))
    }
    const { prompt, sampling } = job
    const completionTokens = LENGTH * sampling.n
    const usage = { promptTokens: prompt.length, completionTokens, cachedTokens: 0 }
    assert.deepEqual(seen.at(-1), { type: 'done', usage })
  }
  assert.equal((await poolState(redis, 'm')).running, 0)
})

test('an engine that drains hands its work over at once', async () => {
  const { clock, redis, events, send } = await startWorld()
  const first = await startEngine(redis, clock, 'first')
  const job = await send('a')
  await clock.advance(10)
  for (let i = 0; i < 5; i++) await first.engine.step()
  const second = await startEngine(redis, clock, 'second')
  const drained = first.daemon.drain(100)
  await clock.advance(101)
  await drained
  await clock.advance(10)
  assert.equal(second.engine.sequences.length, 1)
  for (let i = 0; i < LENGTH; i++) await second.engine.step()
  await clock.advance(10)
  assert.deepEqual(tokensOf(events.get('a')!).ids, whole(job.prompt))
})

test('a cancel reaches the engine without waiting for a beat', async () => {
  const { clock, redis, send } = await startWorld()
  const { engine, daemon } = await startEngine(redis, clock, 'first')
  await send('a')
  await clock.advance(10)
  await engine.step()
  await cancel(redis, 'm', 'a')
  await clock.advance(1)
  assert.equal(engine.sequences.length, 0)
  assert.equal(daemon.held, 0)
})

test('a job sent while no engine runs is answered when one starts', async () => {
  const { clock, redis, events, send } = await startWorld()
  const job = await send('a')
  await clock.advance(5000)
  const { engine } = await startEngine(redis, clock, 'first')
  await clock.advance(10)
  for (let i = 0; i < LENGTH; i++) await engine.step()
  await clock.advance(10)
  assert.deepEqual(tokensOf(events.get('a')!).ids, whole(job.prompt))
})
