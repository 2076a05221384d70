// The benchmark's own arithmetic: what it prints must be right before any number is believed.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { systemClock } from '../../queue/clock.ts'
import { arrivalTimes } from '../../scripts/bench/arrivals.ts'
import type { Measurement } from '../../scripts/bench/client.ts'
import { parseOptions } from '../../scripts/bench/options.ts'
import { percentile, render, summarize } from '../../scripts/bench/report.ts'
import { benchServe } from '../../scripts/bench/serve.ts'

const measurement = (over: Partial<Measurement>): Measurement => ({
  success: true,
  error: '',
  inputTokens: 10,
  outputTokens: 5,
  start: 0,
  ttft: 0.1,
  itl: [0.1, 0.1, 0.1, 0.1],
  latency: 0.5,
  text: '',
  ...over,
})

test('percentiles interpolate as numpy does', () => {
  assert.equal(percentile([1, 2, 3, 4], 50), 2.5)
  assert.equal(percentile([1, 2, 3, 4], 99).toFixed(4), '3.9700')
  assert.equal(percentile([], 50), 0)
})

test('the summary counts only successful requests and keeps the result keys of vLLM', () => {
  const options = parseOptions(['--num-prompts', '3', '--goodput', 'ttft:150', 'tpot:90'])
  const failed = measurement({ success: false, error: 'x', outputTokens: 0 })
  const result = summarize(options, 'm', [measurement({}), measurement({ latency: 0.4, ttft: 0.1 }), failed], 2, 'now')
  assert.equal(result.completed, 2)
  assert.equal(result.failed, 1)
  assert.equal(result.output_throughput, 5)
  assert.equal(result.mean_ttft_ms, 100)
  assert.equal((result.median_tpot_ms as number).toFixed(3), '87.500')
  assert.equal(result.request_goodput, 0.5, 'only the second meets 90 ms per token')
  assert.match(render(options, result), /^={12} Serving Benchmark Result ={12}\nSuccessful requests: +2\n/)
})

test('arrival times have the asked mean rate and depend only on the seed', () => {
  const timesOf = (...argv: string[]) => arrivalTimes(parseOptions(['--num-prompts', '500', ...argv]))
  const times = timesOf('--request-rate', '20', '--seed', '7')
  assert.equal(times.at(-1)!.toFixed(6), '25.000000')
  assert.deepEqual(times, timesOf('--request-rate', '20', '--seed', '7'))
  assert.notDeepEqual(times, timesOf('--request-rate', '20', '--seed', '8'))
  assert.ok(times.every((t, i) => i === 0 || t >= times[i - 1]!))
  assert.deepEqual(new Set(timesOf()), new Set([0]), 'inf sends all at once')
})

test('a ramp begins at its first rate and ends at its last', () => {
  for (const strategy of ['linear', 'exponential']) {
    const ramp = ['--ramp-up-strategy', strategy, '--ramp-up-start-rps', '2', '--ramp-up-end-rps', '50']
    const times = arrivalTimes(parseOptions(['--num-prompts', '4000', ...ramp]))
    const rateOf = (from: number, to: number) => (to - from) / (times[to]! - times[from]!)
    const [first, last] = [rateOf(0, 200), rateOf(3799, 3999)]
    assert.ok(first > 1.5 && first < 4, `${strategy}: ${first} at the beginning`)
    assert.ok(last > 40 && last < 60, `${strategy}: ${last} at the end`)
  }
})

test('an unknown or wrong flag is named', () => {
  assert.throws(() => parseOptions(['--num-promts', '3']), /unknown flag --num-promts; did you mean --num-prompts\?/)
  assert.throws(() => parseOptions(['7']), /"7" belongs to no flag/)
  assert.throws(() => parseOptions(['--num-prompts', '0']), /--num-prompts/)
})

test('several values, repeated flags and inf are read as vLLM reads them', () => {
  const options = parseOptions([
    '--goodput',
    'ttft:1',
    'tpot:2',
    '--header',
    'A=1',
    '--header',
    'B=2',
    '--request-rate',
    'inf',
  ])
  assert.deepEqual(options.goodput, ['ttft:1', 'tpot:2'])
  assert.deepEqual(options.header, ['A=1', 'B=2'])
  assert.equal(options['request-rate'], Number.POSITIVE_INFINITY)
  assert.equal(parseOptions(['--request-rate', '2.5'])['request-rate'], 2.5)
})

test('a run against a server sends every prompt and reports exact token counts', async (t) => {
  let requests = 0
  const server = createServer((incoming, outgoing) => {
    const chunks: Buffer[] = []
    incoming.on('data', (chunk) => chunks.push(chunk))
    incoming.on('end', () => {
      if (incoming.url === '/v1/models') return outgoing.end('{"data":[{"id":"m"}]}')
      if (incoming.url === '/tokenize') return outgoing.end('{"tokens":[5,6,7]}')
      requests++
      const { max_tokens: count, prompt } = JSON.parse(Buffer.concat(chunks).toString()) as {
        max_tokens: number
        prompt: number[]
      }
      for (let i = 0; i < count; i++) outgoing.write(`data: {"choices":[{"text":"t"}]}\n\n`)
      outgoing.write(`data: {"choices":[],"usage":{"prompt_tokens":${prompt.length},"completion_tokens":${count}}}\n\n`)
      outgoing.end('data: [DONE]\n\n')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  let printed = ''
  const { port } = server.address() as AddressInfo
  const argv = [
    '--port',
    `${port}`,
    '--num-prompts',
    '6',
    '--random-input-len',
    '9',
    '--random-output-len',
    '4',
    '--max-concurrency',
    '2',
  ]
  const code = await benchServe(argv, systemClock, (text) => {
    printed += text
  })
  assert.equal(code, 0)
  assert.equal(requests, 6)
  assert.match(printed, /Total input tokens: +54\nTotal generated tokens: +24\n/)
})
