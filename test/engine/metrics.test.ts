import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EngineMetrics } from '../../engine/metrics.ts'
import { Outbox } from '../../engine/outbox.ts'
import { OutputProcessor } from '../../engine/output/processor.ts'
import { alphabetVocab, EngineDouble } from '../doubles/engine.ts'
import { makeJob } from '../queue/jobs.ts'

const capacity = { blocks: 10, blockSize: 16, kvTokens: 160, maxModelLength: 160 }
const labels = 'model_name="m",engine="0"'

function start() {
  const metrics = new EngineMetrics({ model: 'm', engine: '0' }, { capacity, kvCacheDtype: 'bfloat16' }, true)
  const read = async (name: string, extra = '') => {
    const text = await metrics.registry.metrics()
    const prefix = `${name}{${extra}${labels}} `
    const line = text.split('\n').find((candidate) => candidate.startsWith(prefix))
    return line === undefined ? null : Number(line.slice(prefix.length))
  }
  return { metrics, read }
}

test('counters follow what the engine has counted, gauges what is', async () => {
  const { metrics, read } = start()
  const stats = new EngineDouble().stats()
  metrics.step({ ...stats, generationTokens: 5, running: 2, prefixHits: 16 })
  metrics.step({ ...stats, generationTokens: 12, running: 1, prefixHits: 16 })
  assert.equal(await read('vllm:generation_tokens_total'), 12)
  assert.equal(await read('vllm:prefix_cache_hits_total'), 16)
  assert.equal(await read('vllm:num_requests_running'), 1)
})

test('guesses are counted under the names of vLLM, the right ones by their place', async () => {
  const { metrics, read } = start()
  const stats = new EngineDouble().stats()
  metrics.step({ ...stats, drafts: 2, draftTokens: 6, acceptedTokens: [2, 1, 0] })
  metrics.step({ ...stats, drafts: 3, draftTokens: 9, acceptedTokens: [3, 2, 1] })
  assert.equal(await read('vllm:spec_decode_num_drafts_total'), 3)
  assert.equal(await read('vllm:spec_decode_num_draft_tokens_total'), 9)
  assert.equal(await read('vllm:spec_decode_num_accepted_tokens_total'), 6)
  assert.equal(await read('vllm:spec_decode_num_accepted_tokens_per_pos_total', 'position="1",'), 2)
})

test('times are those from claim to first token, between steps, and over the request', async () => {
  const { metrics, read } = start()
  const job = makeJob({ id: 'a', model: 'm' })
  const outbox = new Outbox(job, '1', new OutputProcessor(alphabetVocab).add(job), 1000)
  for (const now of [1500, 1600, 1800]) {
    metrics.tokens(outbox, now)
    outbox.gotTokens(now)
  }
  metrics.finished(outbox, 'stop')
  assert.equal(await read('vllm:time_to_first_token_seconds_sum'), 0.5)
  assert.equal(await read('vllm:inter_token_latency_seconds_count'), 2)
  assert.equal(await read('vllm:e2e_request_latency_seconds_sum'), 0.8)
  assert.equal(await read('vllm:request_success_total', 'finished_reason="stop",'), 1)
})

test('what autoscalers and routers of vLLM read has their names', async () => {
  const { metrics } = start()
  metrics.step(new EngineDouble().stats())
  const text = await metrics.registry.metrics()
  for (const name of ['num_requests_running', 'num_requests_waiting', 'kv_cache_usage_perc', 'cache_config_info']) {
    assert.match(text, new RegExp(`^vllm:${name}\\{`, 'm'))
  }
  assert.match(text, /^vllm:cache_config_info\{.*num_gpu_blocks="10".*\} 1$/m)
  assert.match(text, /^vllm:request_prompt_tokens_bucket\{le="100",/m)
})
