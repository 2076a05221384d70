import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createNetwork, Gate, persist } from '../../../engine/weights/network.ts'
import { SourceError } from '../../../engine/weights/source.ts'
import type { Clock } from '../../../queue/clock.ts'

/** Notes how long it was asked to sleep and returns at once. */
function sleeplessClock(): { clock: Clock; slept: number[] } {
  const slept: number[] = []
  const never = () => () => {}
  const sleep = async (ms: number) => void slept.push(ms)
  return { clock: { now: () => 0, monotonic: () => 0, sleep, every: never, after: never }, slept }
}

test('pauses between attempts double up to the longest, and chance takes at most half of each; one warning tells who waits', async () => {
  for (const [chance, expected] of [
    [0, [125, 250, 500, 1000, 2000, 4000, 5000, 5000]],
    [0.5, [187.5, 375, 750, 1500, 3000, 6000, 7500, 7500]],
  ] as const) {
    const { clock, slept } = sleeplessClock()
    const attempt = () => Promise.reject(Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' }))
    const warnings: string[] = []
    const network = createNetwork(
      clock,
      () => chance,
      (message) => warnings.push(message),
    )
    await assert.rejects(persist('file', network, attempt), {
      code: 'unreachable',
      message: 'file: gave up after 9 attempts: ECONNRESET socket hang up',
    })
    assert.deepEqual(slept, expected)
    assert.deepEqual(warnings, ['file: 4 attempts failed, the last with ECONNRESET socket hang up; going on trying'])
  }
})

test('what repetition cannot change is not repeated', async () => {
  const { clock, slept } = sleeplessClock()
  const denied = new SourceError('denied', 'wrong secret')
  await assert.rejects(
    persist(
      'file',
      createNetwork(clock, () => 0),
      () => Promise.reject(denied),
    ),
    denied,
  )
  assert.deepEqual(slept, [])
})

test('an aborted transfer ends with the reason it was aborted for', async () => {
  const { clock } = sleeplessClock()
  const stop = new AbortController()
  const reason = new SourceError('disk', 'full')
  const attempt = () => {
    stop.abort(reason)
    return Promise.reject(new Error('The operation was aborted'))
  }
  await assert.rejects(
    persist(
      'file',
      createNetwork(clock, () => 0),
      attempt,
      stop.signal,
    ),
    reason,
  )
})

test('a gate lets in no more than its room, in order, and is not blocked by failures', async () => {
  const gate = new Gate(2)
  const order: number[] = []
  let inside = 0
  let most = 0
  const visits = [0, 1, 2, 3, 4, 5].map((i) =>
    gate.pass(async () => {
      most = Math.max(most, ++inside)
      order.push(i)
      await Promise.resolve()
      inside--
      if (i % 2 === 0) throw new Error('fell')
    }),
  )
  const results = await Promise.allSettled(visits)
  assert.equal(results.filter((result) => result.status === 'rejected').length, 3)
  assert.equal(most, 2)
  assert.deepEqual(order, [0, 1, 2, 3, 4, 5])
})
