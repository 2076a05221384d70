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

/** Throws before or after what it runs took effect, as a broken connection does; or neither. */
type Mishap = () => 'before' | 'after' | null
const none: Mishap = () => null

/** One engine process: what main.ts puts together. */
async function startEngine(redis: Redis, clock: Clock, id: string, mishap = none) {
  const identity = makeEngine('m', { id })
  const engine = new EngineDouble()
  let isDead = false
  const attempt = async <T>(run: () => Promise<T>): Promise<T> => {
    if (isDead) return new Promise<T>(() => {}) // a dead process says nothing any more
    const trouble = mishap()
    if (trouble === 'before') throw new Error('Command timed out')
    const result = await run()
    if (trouble === 'after') throw new Error('Command timed out')
    return result
  }
  const queue: Queue = {
    claim: (room) => attempt(() => claim(redis, identity, room)),
    append: (step) => attempt(() => append(redis, identity, step)),
    release: (held) => release(redis, identity, held),
    reap: () => attempt(() => reap(redis, 'm')),
    doorbell: (ring) => doorbell(redis, 'm', ring),
    control: (on) => control(redis, identity.id, on),
    onReconnect: () => () => {},
  }
  const fail = (error: Error) => assert.fail(error)
  const onError = mishap === none ? fail : () => {}
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
    onError,
    onFailure: fail,
  })
  await beat.started
  await daemon.start()
  const kill = async () => {
    isDead = true
    await beat.close()
  }
  const step = async () => {
    if (!isDead && !engine.isPaused) await engine.step()
  }
  return { engine, daemon, step, kill, isDead: () => isDead }
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

for (const [name, tokensPerStep] of [
  ['', () => 1],
  [', of several tokens a step too', (index: number) => 1 + (index % 4)],
] as const)
  test(`the work of an engine that dies is finished by another, token for token${name}`, async () => {
    const { clock, redis, events, send } = await startWorld()
    const first = await startEngine(redis, clock, 'first')
    first.engine.tokensPerStep = tokensPerStep
    const jobs = [await send('a'), await send('b', 2), await send('c')]
    await clock.advance(10)
    const second = await startEngine(redis, clock, 'second')
    for (let i = 0; i < 100; i++) {
      if (i === 5) await first.kill()
      await first.step()
      await second.step()
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

for (let seed = 1; seed <= 12; seed++) {
  test(`a mixture of deaths, drains and lost replies loses and repeats nothing (seed ${seed})`, async () => {
    const random = generator(seed)
    const { clock, redis, events, send } = await startWorld()
    const mishap: Mishap = () => (random() < 0.85 ? null : random() < 0.5 ? 'before' : 'after')
    let lives = 0
    const start = () => startEngine(redis, clock, `life ${lives++}`, mishap)
    const engines = [await start(), await start()]
    const jobs = []
    for (let turn = 0; turn < 400; turn++) {
      if (turn < 100 && turn % 10 === 0) jobs.push(await send(String.fromCharCode(97 + turn / 10), 1 + (turn % 3)))
      const i = Math.floor(random() * engines.length)
      if (turn % 60 === 30) {
        if (random() < 0.5) await engines[i]!.kill()
        else {
          await Promise.all([engines[i]!.daemon.drain(50), clock.advance(400)])
          await engines[i]!.kill()
        }
        engines[i] = await start()
      }
      for (const engine of engines) if (random() < 0.9) await engine.step()
      await clock.advance(10 + 30 * random())
    }
    for (const { id, prompt, sampling } of jobs) {
      const seen = events.get(id)!
      for (let choice = 0; choice < sampling.n; choice++) {
        assert.deepEqual(tokensOf(seen, choice).ids, whole(prompt, choice), `job ${id}, choice ${choice}`)
      }
      assert.equal(seen.at(-1)?.type, 'done')
    }
    assert.equal((await poolState(redis, 'm')).running, 0)
  })
}

/** mulberry32 */
function generator(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
