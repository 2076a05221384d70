// The engine thread with a real model: verbs in, steps out, sleep when idle, failure told.
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseEngineConfig } from '../../engine/config.ts'
import type { EngineStats, StepOutput } from '../../engine/engine.ts'
import { EngineThread } from '../../engine/thread.ts'
import type { Sampling } from '../../queue/job.ts'
import { buildKernels } from '../../scripts/build.ts'
import { makeJob } from '../queue/jobs.ts'

const stories = fileURLToPath(new URL('../fixtures/stories260K', import.meta.url))

async function start(t: TestContext, options: { model?: string } = {}) {
  await buildKernels()
  const failures: Error[] = []
  const { promise: failed, resolve: fail } = Promise.withResolvers<Error>()
  const config = parseEngineConfig({ model: stories, threads: 1, maxNumSeqs: 8, maxNumBatchedTokens: 64, ...options })
  const thread = new EngineThread({
    config,
    settings: {} as never,
    onProgress: () => {},
    onWarning: () => {},
    onFailure: (error) => {
      failures.push(error)
      fail(error)
    },
  })
  t.after(() => thread.close())
  const outputs: StepOutput[] = []
  let stats: EngineStats | null = null
  let wake = () => {}
  thread.onStep((step, now) => {
    outputs.push(...step)
    stats = now
    wake()
  })
  const until = async (holds: () => boolean) => {
    while (!holds()) await new Promise<void>((resolve) => (wake = resolve))
  }
  return { thread, outputs, failures, failed, until, stats: () => stats }
}

function request(id: string, options: Partial<Sampling> = {}) {
  const { sampling } = makeJob({ id, model: 'm' })
  const prompt = Uint32Array.of(1, 403, 407)
  return { id, prompt, sampling: { ...sampling, ...options }, resume: [], salt: '', adapter: 0, class: 0 }
}

test('two requests run in one batch and report under their own names', async (t) => {
  const { thread, outputs, until, stats } = await start(t)
  const facts = await thread.opened
  assert.equal(facts.vocabularySize, 512)
  await thread.ready
  thread.add(request('first', { maxTokens: 6, ignoreEos: true }))
  thread.add(request('second', { maxTokens: 4, ignoreEos: true, logprobs: 2 }))
  await until(() => outputs.filter((output) => output.type === 'token' && output.finish).length === 2)
  const of = (id: string) => outputs.filter((output) => output.id === id && output.type === 'token')
  assert.deepEqual([of('first').length, of('second').length], [6, 4])
  const [one] = of('second')
  assert.ok(one?.type === 'token' && one.logprobs?.length === 3)
  assert.equal(stats()?.running, 0)
})

test('an aborted request falls silent, the next one is answered', async (t) => {
  const { thread, outputs, until } = await start(t)
  await thread.ready
  thread.add(request('long', { maxTokens: 400, ignoreEos: true }))
  await until(() => outputs.length > 2)
  thread.abort('long')
  const count = outputs.length
  thread.add(request('next', { maxTokens: 2, ignoreEos: true }))
  await until(() => outputs.some((output) => output.id === 'next' && output.type === 'token' && output.index === 1))
  assert.equal(outputs.filter(({ id }) => id === 'long').length, count)
})

test('a paused engine does not step, an idle one sleeps', async (t) => {
  const { thread, outputs, until } = await start(t)
  await thread.ready
  thread.pause()
  thread.add(request('a', { maxTokens: 3, ignoreEos: true }))
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(outputs.length, 0)
  assert.equal(thread.control.isStepping, false)
  thread.resume()
  await until(() => outputs.length === 3)
  const { steps } = thread.control
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(thread.control.steps, steps)
  assert.equal(thread.control.isStepping, false)
})

test('what the engine refuses comes back under its name', async (t) => {
  const { thread, outputs, until } = await start(t)
  await thread.ready
  thread.add({ ...request('bad'), prompt: Uint32Array.of(1, 99_999) })
  await until(() => outputs.length === 1)
  assert.equal(outputs[0]?.type, 'failed')
  assert.equal(outputs[0]?.id, 'bad')
})

test('a model that cannot be read is told before it is ready', async (t) => {
  const { thread, failures } = await start(t, { model: './nowhere' })
  await assert.rejects(thread.opened, /nowhere/)
  await assert.rejects(thread.ready, /nowhere/)
  assert.deepEqual(failures, [])
})

test('an exception in the thread is a failure of the engine, and close does not wait for it', async (t) => {
  const { thread, failed } = await start(t)
  await thread.ready
  thread.add({ ...request('a'), prompt: null as never })
  assert.ok((await failed) instanceof TypeError)
})
