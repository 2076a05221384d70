import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../../queue/clock.ts'
import { showProgress } from '../../scripts/progress.ts'

/** Time moves by hand; nothing here sleeps. */
function handClock(): { clock: Clock; pass(ms: number): void } {
  let now = 0
  const never = () => () => {}
  const clock = { now: () => now, monotonic: () => now, sleep: async () => {}, every: never, after: never }
  return {
    clock,
    pass: (ms) => {
      now += ms
    },
  }
}

function show(isTTY: boolean) {
  const { clock, pass } = handClock()
  const written: string[] = []
  const report = showProgress('Loading tiny', { write: (text) => written.push(text), isTTY, columns: 120 }, clock)
  return { report: (bytes: number) => report({ file: 'model.safetensors', bytes, total: 4e9 }), pass, written }
}

test('without a terminal there is a plain line every few seconds and one at the end', () => {
  const { report, pass, written } = show(false)
  for (let second = 0; second <= 8; second++) {
    report(second * 5e8)
    pass(1000)
  }
  assert.deepEqual(written, [
    'Loading tiny: 1.5 GB of 4.0 GB, 500.0 MB/s\n',
    'Loading tiny: 3.0 GB of 4.0 GB, 500.0 MB/s\n',
    'Loading tiny: 4.0 GB of 4.0 GB, 500.0 MB/s\n',
  ])
})

test('on a terminal one line is redrawn, not more often than the eye follows, and ended once', () => {
  const { report, pass, written } = show(true)
  report(0)
  report(1)
  pass(2000)
  report(2e9)
  pass(2000)
  report(4e9)
  report(4e9)
  assert.equal(written.length, 3)
  assert.equal(
    written[1],
    '\r\x1b[KLoading tiny ████████████░░░░░░░░░░░░ 2.0 GB of 4.0 GB, 1.0 GB/s 2 s left  model.safetensors',
  )
  assert.equal(written[2], '\r\x1b[KLoading tiny ████████████████████████ 4.0 GB of 4.0 GB, 1.0 GB/s in 4.0 s\n')
})

test('what the cache held before does not count as speed', () => {
  const { report, pass, written } = show(false)
  report(3e9)
  pass(3000)
  report(3.3e9)
  assert.deepEqual(written, ['Loading tiny: 3.3 GB of 4.0 GB, 100.0 MB/s\n'])
})

test('a step of a moment leaves no line in a log', () => {
  const { report, pass, written } = show(false)
  report(0)
  pass(500)
  report(4e9)
  assert.deepEqual(written, [])
})
