// The daemon between an engine double (tokens are a function of prompt, choice and index) and a queue double that keeps
// the protocol's rules: epochs, offsets, gaps. Whatever goes wrong between the two, the journal ends up the same.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Daemon } from '../../engine/daemon.ts'
import { EngineMetrics } from '../../engine/metrics.ts'
import { OutputProcessor } from '../../engine/output/processor.ts'
import { decodeElement, encodeFinish, encodeToken, type Usage } from '../../queue/event.ts'
import type { Job, Sampling } from '../../queue/job.ts'
import { alphabetVocab, EngineDouble, LETTERS, settled } from '../doubles/engine.ts'
import { QueueDouble } from '../doubles/queue.ts'
import { ManualClock } from '../queue/clock.ts'
import { greedy } from './scheduler/requests.ts'

function job(id: string, options: Partial<Sampling> = {}, prompt = [0]): Job {
  const sampling: Sampling = { ...greedy, maxTokens: 5, ...options }
  return {
    id,
    model: 'm',
    revision: 'r',
    tenant: 't',
    gateway: 'g',
    class: 0,
    adapter: 0,
    salt: '',
    prompt: Uint32Array.from(prompt),
    sampling,
    maxWaitMs: 0,
  }
}

async function start(limits = {}) {
  const clock = new ManualClock()
  const queue = new QueueDouble()
  const engine = new EngineDouble()
  const held = new Set<string>()
  const errors: Error[] = []
  const failures: Error[] = []
  const capacity = { blocks: 100, blockSize: 16, kvTokens: 1600, maxModelLength: 1600 }
  const daemon = new Daemon({
    queue,
    engine,
    clock,
    processor: new OutputProcessor(alphabetVocab),
    metrics: new EngineMetrics({ model: 'm', engine: '0' }, { capacity, kvCacheDtype: 'float32' }, true),
    heart: { hold: (id) => held.add(id), drop: (id) => held.delete(id) },
    random: () => 0.5,
    limits: { maxNumSeqs: 4, kvTokens: 1600, blockSize: 16, ...limits },
    stats: engine.stats(),
    leaseMs: 1000,
    onError: (error) => errors.push(error),
    onFailure: (error) => failures.push(error),
  })
  await daemon.start()
  await settled()
  return { clock, queue, engine, daemon, held, errors, failures }
}

const alphabet = (length: number) => Array.from({ length }, (_, i) => i % LETTERS.length)

test('a job is claimed at the doorbell, streamed to the journal and ended with its usage', async () => {
  const { queue, engine, held } = await start()
  queue.push(job('a', { maxTokens: 3 }))
  await settled()
  assert.deepEqual([...held], ['a'])
  for (let i = 0; i < 3; i++) await engine.step()
  assert.deepEqual(queue.read('a'), [0, 1, 2, 'F'])
  assert.deepEqual(queue.entries.get('a')?.end, { promptTokens: 1, completionTokens: 3, cachedTokens: 0 })
  assert.deepEqual([...held], [])
})

test('without a doorbell the slow poll finds the job', async () => {
  const { queue, engine, clock } = await start()
  queue.ring = () => {}
  queue.push(job('a'))
  await clock.advance(100)
  assert.equal(engine.sequences.length, 0)
  await clock.advance(400)
  assert.equal(engine.sequences.length, 1)
})

test('while an append is under way tokens gather, and leave as one', async () => {
  const { queue, engine } = await start()
  queue.push(job('a', { maxTokens: 9 }))
  await settled()
  const gate = Promise.withResolvers<void>()
  queue.gate = gate.promise
  for (let i = 0; i < 5; i++) await engine.step()
  assert.equal(queue.appends.length, 0)
  gate.resolve()
  await settled()
  assert.deepEqual(
    queue.appends.map((step) => step[0]!.choices[0]!.tokens.length),
    [1, 4],
  )
  assert.deepEqual(queue.read('a'), alphabet(5))
})

for (const when of ['before', 'after'] as const) {
  test(`an append that fails ${when} it took effect is repeated without loss or repetition`, async () => {
    const { queue, engine, clock, errors } = await start()
    queue.push(job('a', { maxTokens: 4 }))
    await settled()
    await engine.step()
    queue.failNext = when
    await engine.step()
    await engine.step()
    assert.equal(errors.length, 1)
    await clock.advance(1000)
    await engine.step()
    assert.deepEqual(queue.read('a'), [0, 1, 2, 3, 'F'])
    assert.notEqual(queue.entries.get('a')?.end, null)
  })
}

test('after a gap everything the journal lost is sent again', async () => {
  const { queue, engine } = await start()
  queue.push(job('a', { maxTokens: 6, n: 2 }))
  await settled()
  for (let i = 0; i < 4; i++) await engine.step()
  const { journal } = queue.entries.get('a')!
  journal[0]!.length = 1
  journal[1]!.length = 3
  for (let i = 0; i < 2; i++) await engine.step()
  assert.deepEqual(queue.read('a', 0), [0, 1, 2, 3, 4, 5, 'F'])
  assert.deepEqual(queue.read('a', 1), [3, 4, 5, 6, 7, 8, 'F'])
  assert.equal((queue.entries.get('a')!.end as Usage).completionTokens, 12)
})

test('a gap found by the last append is closed although the engine has nothing more to say', async () => {
  const { queue, engine } = await start()
  queue.push(job('a', { maxTokens: 3 }))
  await settled()
  await engine.step()
  await engine.step()
  queue.entries.get('a')!.journal[0]!.length = 0
  await engine.step()
  assert.deepEqual(queue.read('a'), [0, 1, 2, 'F'])
})

test('fenced work is dropped and its sequences leave the engine', async () => {
  const { queue, engine, held } = await start()
  queue.push(job('a'))
  await settled()
  await engine.step()
  queue.entries.get('a')!.epoch = 77
  await engine.step()
  assert.equal(engine.sequences.length, 0)
  assert.deepEqual([...held], [])
  assert.deepEqual(queue.read('a'), [0])
})

test('a cancelled job leaves the engine before its next step; so does one the lease lost', async () => {
  const { queue, engine, daemon } = await start()
  queue.push(job('a'))
  queue.push(job('b'))
  await settled()
  await engine.step()
  queue.cancel({ cancel: 'a' })
  assert.deepEqual(
    engine.sequences.map(({ request }) => request.id),
    ['b'],
  )
  daemon.drop('b')
  assert.equal(engine.sequences.length, 0)
  assert.equal(daemon.held, 0)
})

test('a job claimed again while it is still held starts anew from the journal', async () => {
  const { queue, engine } = await start()
  const a = job('a', { maxTokens: 4 })
  queue.push(a)
  await settled()
  await engine.step()
  await engine.step()
  queue.waiting.push(queue.entries.get('a')!)
  queue.ring()
  await settled()
  assert.deepEqual(
    engine.sequences.map(({ index }) => index),
    [2],
  )
  for (let i = 0; i < 2; i++) await engine.step()
  assert.deepEqual(queue.read('a'), [0, 1, 2, 3, 'F'])
})

test('a stop string ends the choice in the engine and the job in the queue', async () => {
  const { queue, engine } = await start()
  queue.push(job('a', { maxTokens: 20, stop: ['cd'] }))
  await settled()
  for (let i = 0; i < 4; i++) await engine.step()
  assert.equal(engine.sequences.length, 0)
  assert.deepEqual(queue.read('a'), [0, 1, 2, 3, 'F'])
  const text = queue.entries.get('a')!.journal[0]!.map((element) => decodeElement(element))
  assert.equal(text.map((e) => ('token' in e ? e.token.text : e.finish.text)).join(''), 'ab')
  assert.deepEqual(text.at(-1), { finish: { text: '', reason: 'stop', stopReason: 'cd' } })
})

test('a job with a journal goes on after it; a choice that had ended is not run again', async () => {
  const { queue, engine } = await start()
  const token = (id: number) => encodeToken({ id, text: LETTERS[id]! })
  const done = [token(0), encodeFinish({ text: '', reason: 'stop', stopReason: 'x' })]
  queue.push(job('a', { n: 2, maxTokens: 4 }), [done, [token(3), token(4)]])
  await settled()
  assert.deepEqual(
    engine.sequences.map(({ choice, index }) => [choice, index]),
    [[1, 2]],
  )
  for (let i = 0; i < 2; i++) await engine.step()
  assert.deepEqual(queue.read('a', 0), [0, 'F'])
  assert.deepEqual(queue.read('a', 1), [3, 4, 5, 6, 'F'])
  assert.equal((queue.entries.get('a')!.end as Usage).completionTokens, 5)
})

test('a job whose journal was complete is ended without touching the engine', async () => {
  const { queue, engine, held } = await start()
  const finish = encodeFinish({ text: '', reason: 'length', stopReason: null })
  queue.push(job('a'), [[encodeToken({ id: 0, text: 'a' }), finish]])
  await settled()
  await settled()
  assert.equal(engine.sequences.length, 0)
  assert.deepEqual(queue.entries.get('a')?.end, { promptTokens: 1, completionTokens: 1, cachedTokens: 0 })
  assert.deepEqual([...held], [])
})

test('a request the engine refuses fails with the reason, the others go on', async () => {
  const { queue, engine, daemon } = await start()
  engine.refuse = 'bad'
  queue.push(job('bad'))
  queue.push(job('good', { maxTokens: 1 }))
  await settled()
  await engine.step()
  assert.deepEqual(queue.entries.get('bad')?.end, { code: 'request_failed', message: 'no' })
  assert.deepEqual(queue.read('good'), [0, 'F'])
  assert.equal(daemon.held, 0)
})

test('no more is claimed than there are sequences, and the rest when they end', async () => {
  const { queue, engine } = await start({ maxNumSeqs: 2 })
  for (const id of ['a', 'b', 'c', 'd']) queue.push(job(id, { maxTokens: 2 }))
  await settled()
  assert.equal(engine.sequences.length, 2)
  await engine.step()
  assert.equal(queue.waiting.length, 2)
  await engine.step()
  await settled()
  assert.deepEqual(
    engine.sequences.map(({ request }) => request.id),
    ['c', 'd'],
  )
})

test('nothing is claimed while sequences wait in the engine or no KV block is free', async () => {
  const { queue, engine, clock } = await start()
  queue.push(job('a', { maxTokens: 50 }))
  await settled()
  for (const trouble of [{ waiting: 1 }, { waiting: 0, freeBlocks: 0 }]) {
    Object.assign(engine, trouble)
    await engine.step()
    const claims = queue.rooms.length
    await clock.advance(1000)
    assert.equal(queue.rooms.length, claims)
  }
  engine.freeBlocks = 3
  await engine.step()
  assert.deepEqual(queue.rooms.at(-1), { tokens: 48, sequences: 3, prefixes: [] })
})

test('the engine pauses when a request is 256 tokens ahead of the journal and goes on when Redis answers', async () => {
  const { queue, engine } = await start()
  queue.push(job('a', { maxTokens: 1000 }))
  await settled()
  const gate = Promise.withResolvers<void>()
  queue.gate = gate.promise
  for (let i = 0; i < 300 && !engine.isPaused; i++) await engine.step()
  assert.ok(engine.isPaused)
  gate.resolve()
  await settled()
  assert.equal(queue.read('a').length, 256)
  assert.equal(engine.isPaused, false)
})

test('drain claims no more and waits for what runs', async () => {
  const { queue, engine, daemon } = await start()
  queue.push(job('a', { maxTokens: 2 }))
  await settled()
  const drained = daemon.drain(10_000)
  queue.push(job('late'))
  for (let i = 0; i < 2; i++) await engine.step()
  await drained
  assert.deepEqual(queue.read('a'), [0, 1, 'F'])
  assert.equal(queue.waiting.length, 1)
  assert.deepEqual(queue.released, [])
})

test('drain gives back what does not end in time', async () => {
  const { queue, engine, daemon, clock, held } = await start()
  queue.push(job('a', { maxTokens: 1000 }))
  await settled()
  await engine.step()
  const drained = daemon.drain(10_000)
  await clock.advance(10_001)
  await drained
  assert.deepEqual(queue.released, ['a'])
  assert.equal(engine.sequences.length, 0)
  assert.deepEqual([...held], [])
})

test('outputs that contradict each other end the process', async () => {
  const { queue, engine, failures } = await start()
  queue.push(job('a'))
  await settled()
  engine.sequences[0]!.index = 3
  await engine.step()
  assert.match(failures[0]!.message, /token 3 of a\/0 came where 0 was next/)
})
