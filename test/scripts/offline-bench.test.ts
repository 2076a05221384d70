// The benchmarks of the engine alone, on a model of a few thousand random weights; and the picture of a run.
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { systemClock } from '../../queue/clock.ts'
import { benchLatency, summarizeLatency } from '../../scripts/bench/latency.ts'
import { draw, parseMetrics, parseRecord, summarize } from '../../scripts/bench/occupancy.ts'
import { benchThroughput } from '../../scripts/bench/throughput.ts'

const folder = mkdtempSync(join(tmpdir(), 'pagestream-bench-'))
after(() => rmSync(folder, { recursive: true }))
const config = {
  architectures: ['LlamaForCausalLM'],
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 300,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  hidden_act: 'silu',
  tie_word_embeddings: true,
  torch_dtype: 'bfloat16',
}
writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
const model = [folder, '--load-format', 'dummy', '--threads', '1']

async function printed(run: typeof benchLatency, ...argv: string[]): Promise<string> {
  let text = ''
  const code = await run([...model, ...argv], systemClock, (more) => {
    text += more
  })
  assert.equal(code, 0)
  return text
}

test('throughput counts exactly what was asked for, and records every step', async () => {
  const [json, record] = [join(folder, 't.json'), join(folder, 'steps.jsonl')]
  const load = ['--num-prompts', '12', '--random-input-len', '20', '--random-output-len', '10', '--max-num-seqs', '4']
  const text = await printed(benchThroughput, ...load, '--output-json', json, '--record-steps', record)
  assert.match(text, /^Throughput: [\d.]+ requests\/s, [\d.]+ total tokens\/s, [\d.]+ output tokens\/s\n/)
  assert.match(text, /Total num prompt tokens: {2}240\nTotal num output tokens: {2}120\n/)
  const result = JSON.parse(readFileSync(json, 'utf8'))
  assert.equal(result.num_requests, 12)
  assert.equal(result.total_num_tokens, 360)
  assert.ok(Math.abs(result.tokens_per_second * result.elapsed_time - 360) < 1e-6)
  const steps = parseRecord(readFileSync(record, 'utf8'))
  assert.ok(steps.length >= 30 && Math.max(...steps.map(({ running }) => running)) === 4)
  const svg = draw(steps, 4)
  assert.match(svg, /^<svg .*Batch: \d+\.\d % of 4 places on average.*KV cache in use.*<\/svg>\n$/s)
})

test('latency runs its batches after the warm-up and reports the keys of vLLM', async () => {
  const json = join(folder, 'l.json')
  const load = [
    '--batch-size',
    '2',
    '--input-len',
    '5',
    '--output-len',
    '4',
    '--num-iters',
    '3',
    '--num-iters-warmup',
    '1',
  ]
  const text = await printed(benchLatency, ...load, '--output-json', json)
  assert.match(text, /^Avg latency: [\d.]+ seconds\n10% percentile latency: /)
  const result = JSON.parse(readFileSync(json, 'utf8'))
  assert.equal(result.latencies.length, 3)
  assert.deepEqual(Object.keys(result.percentiles), ['10', '25', '50', '75', '90', '99'])
  assert.deepEqual(summarizeLatency([3, 1, 2]).percentiles['50'], 2)
  assert.equal(summarizeLatency([3, 1, 2]).avg_latency, 2)
})

test('a wrong flag is told by its name before a model is loaded', async () => {
  await assert.rejects(benchLatency([...model, '--batch-size', '0'], systemClock), /--batch-size/)
  await assert.rejects(benchThroughput([...model, '--num-prompt', '3'], systemClock), /did you mean --num-prompts/)
  await assert.rejects(benchThroughput([...model, '--max-num-seqs', '0'], systemClock), /--max-num-seqs/)
})

test('occupancy is the mean over time, not over steps', () => {
  const sample = (seconds: number, running: number, kvUsage: number) => ({ seconds, running, waiting: 0, kvUsage })
  const { occupancy, kvUsage } = summarize([sample(0, 4, 0.5), sample(9, 0, 0), sample(10, 0, 0)], 4)
  assert.equal(occupancy, 0.9)
  assert.equal(kvUsage, 0.45)
  assert.throws(() => draw([sample(0, 1, 1)]), /fewer than two steps/)
})

test('the gauges of a server are read whatever their labels', () => {
  const text = [
    '# HELP vllm:num_requests_running x',
    'vllm:num_requests_running{model_name="m",engine="0"} 3',
    'vllm:num_requests_running{model_name="m",engine="1"} 4',
    'vllm:num_requests_waiting{model_name="m",engine="0"} 5',
    'vllm:kv_cache_usage_perc{model_name="m",engine="0"} 0.5',
    'vllm:kv_cache_usage_perc{model_name="m",engine="1"} 0.25',
  ].join('\n')
  assert.deepEqual(parseMetrics(text, 2), { seconds: 2, running: 7, waiting: 5, kvUsage: 0.375 })
})
