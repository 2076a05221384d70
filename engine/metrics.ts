// Every metric of an engine, declared in tables: vLLM's names, so that dashboards and autoscalers made for vLLM read
// them, and pagestream_* where vLLM has no such metric. Fed by the daemon once per step and once per request;
// served by health.ts.
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { EngineStats } from './engine.ts'
import type { ModelFacts } from './load.ts'
import type { Outbox } from './outbox.ts'

const gauges: Record<string, [help: string, value: (stats: EngineStats) => number]> = {
  'vllm:num_requests_running': ['Sequences in execution.', (stats) => stats.running],
  'vllm:num_requests_waiting': ['Sequences that wait in this engine.', (stats) => stats.waiting],
  'vllm:kv_cache_usage_perc': ['Share of the KV cache in use; 1 is all of it.', (stats) => stats.kvUsage],
  pagestream_kv_blocks: ['KV blocks of the pool.', (stats) => stats.totalBlocks],
  pagestream_kv_blocks_cached: [
    'KV blocks that no sequence holds and that keep a prefix.',
    (stats) => stats.cachedBlocks,
  ],
}

/** Figures that only grow, as the engine counts them. */
const counters: Record<string, [help: string, total: (stats: EngineStats) => number]> = {
  'vllm:prompt_tokens_total': ['Prompt tokens computed or found in the cache.', (stats) => stats.promptTokens],
  'vllm:generation_tokens_total': ['Tokens generated.', (stats) => stats.generationTokens],
  'vllm:prefix_cache_queries_total': ['Prompt tokens looked up in the prefix cache.', (stats) => stats.prefixQueries],
  'vllm:prefix_cache_hits_total': ['Prompt tokens found in the prefix cache.', (stats) => stats.prefixHits],
  'vllm:prompt_tokens_cached_total': ['Prompt tokens found in the prefix cache.', (stats) => stats.prefixHits],
  'vllm:num_preemptions_total': [
    'Sequences that lost their blocks and are computed again.',
    (stats) => stats.preemptions,
  ],
  'vllm:spec_decode_num_drafts_total': ['Decodes that carried guessed tokens.', (stats) => stats.drafts],
  'vllm:spec_decode_num_draft_tokens_total': ['Tokens guessed.', (stats) => stats.draftTokens],
  'vllm:spec_decode_num_accepted_tokens_total': [
    'Guessed tokens that were right.',
    (stats) => stats.acceptedTokens.reduce((sum, count) => sum + count, 0),
  ],
  pagestream_steps_total: ['Steps of the engine.', (stats) => stats.steps],
}

const FIRST_TOKEN = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
]
const TOKEN = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
const REQUEST = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
const STEP_TOKENS = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384]

/** 'lengths': 1, 2, 5, 10, ... up to the longest sequence. Times count from the claim of the job. */
const histograms = {
  'vllm:time_to_first_token_seconds': ['Time to the first token.', FIRST_TOKEN],
  'vllm:inter_token_latency_seconds': ['Time between two steps that gave the request tokens.', TOKEN],
  'vllm:request_time_per_output_token_seconds': ['Time per token after the first, averaged over a request.', TOKEN],
  'vllm:e2e_request_latency_seconds': ['Time to the end of the request.', REQUEST],
  'vllm:request_inference_time_seconds': ['Time in the engine.', REQUEST],
  'vllm:request_prefill_time_seconds': ['Time to the first token.', REQUEST],
  'vllm:request_decode_time_seconds': ['Time from the first token to the last.', REQUEST],
  'vllm:iteration_tokens_total': ['Tokens of a step.', STEP_TOKENS],
  'vllm:request_prompt_tokens': ['Prompt tokens of a request.', 'lengths'],
  'vllm:request_generation_tokens': ['Generated tokens of a request.', 'lengths'],
  'vllm:request_params_max_tokens': ['max_tokens of a request.', 'lengths'],
  'vllm:request_params_n': ['n of a request.', [1, 2, 5, 10, 20]],
} satisfies Record<string, [help: string, buckets: number[] | 'lengths']>

type HistogramName = keyof typeof histograms

export type FinishedReason = 'stop' | 'length' | 'abort' | 'error'

export class EngineMetrics {
  readonly registry = new Registry()
  readonly #gauges: [Gauge, (stats: EngineStats) => number][]
  readonly #counters: [Counter, (stats: EngineStats) => number][]
  readonly #histograms = new Map<HistogramName, Histogram>()
  readonly #success: Counter
  readonly #resumed: Counter
  readonly #accepted: Counter
  /** What the counters have been told. */
  #counted: EngineStats | null = null

  constructor(
    labels: { model: string; engine: string },
    facts: Pick<ModelFacts, 'capacity' | 'kvCacheDtype'>,
    enablePrefixCaching: boolean,
  ) {
    const { registry } = this
    const registers = [registry]
    registry.setDefaultLabels({ model_name: labels.model, engine: labels.engine })
    this.#gauges = Object.entries(gauges).map(([name, [help, value]]) => [new Gauge({ name, help, registers }), value])
    this.#counters = Object.entries(counters).map(([name, [help, total]]) => [
      new Counter({ name, help, registers }),
      total,
    ])
    for (const [name, [help, choice]] of Object.entries(histograms)) {
      const buckets = choice === 'lengths' ? lengthBuckets(facts.capacity.maxModelLength) : (choice as number[])
      this.#histograms.set(name as HistogramName, new Histogram({ name, help, buckets, registers }))
    }
    const labelNames = ['finished_reason']
    this.#success = new Counter({
      name: 'vllm:request_success_total',
      help: 'Requests that ended.',
      labelNames,
      registers,
    })
    this.#resumed = new Counter({
      name: 'pagestream_resumed_total',
      help: 'Requests taken over after their first token.',
      registers,
    })
    this.#accepted = new Counter({
      name: 'vllm:spec_decode_num_accepted_tokens_per_pos_total',
      help: 'Guessed tokens that were right, by their place in the guess.',
      labelNames: ['position'],
      registers,
    })
    const cache = {
      block_size: facts.capacity.blockSize,
      num_gpu_blocks: facts.capacity.blocks,
      cache_dtype: facts.kvCacheDtype,
      enable_prefix_caching: String(enablePrefixCaching),
    }
    new Gauge({ name: 'vllm:cache_config_info', help: 'The KV cache.', labelNames: Object.keys(cache), registers }).set(
      cache,
      1,
    )
  }

  step(stats: EngineStats) {
    for (const [gauge, value] of this.#gauges) gauge.set(value(stats))
    for (const [counter, total] of this.#counters) {
      const grown = total(stats) - (this.#counted ? total(this.#counted) : 0)
      if (grown > 0) counter.inc(grown)
    }
    for (const [position, accepted] of stats.acceptedTokens.entries()) {
      this.#accepted.inc({ position }, accepted - (this.#counted?.acceptedTokens[position] ?? 0))
    }
    if (this.#counted && stats.steps > this.#counted.steps)
      this.#observe('vllm:iteration_tokens_total', stats.stepTokens)
    this.#counted = stats
  }

  /** The job was claimed with tokens in its journal. */
  resumed() {
    this.#resumed.inc()
  }

  /** The job gets tokens at `now` (clock.monotonic); its own times are those before. */
  tokens(job: Outbox, now: number) {
    if (job.firstTokenAt === null) this.#observe('vllm:time_to_first_token_seconds', (now - job.claimedAt) / 1000)
    else this.#observe('vllm:inter_token_latency_seconds', (now - job.lastTokenAt) / 1000)
  }

  finished(job: Outbox, reason: FinishedReason) {
    this.#success.inc({ finished_reason: reason })
    const { promptTokens, completionTokens } = job.output.usage
    this.#observe('vllm:request_prompt_tokens', promptTokens)
    this.#observe('vllm:request_generation_tokens', completionTokens)
    this.#observe('vllm:request_params_max_tokens', job.job.sampling.maxTokens)
    this.#observe('vllm:request_params_n', job.job.sampling.n)
    const first = job.firstTokenAt
    if (first === null) return
    const decode = (job.lastTokenAt - first) / 1000
    const inference = (job.lastTokenAt - job.claimedAt) / 1000
    this.#observe('vllm:e2e_request_latency_seconds', inference)
    this.#observe('vllm:request_inference_time_seconds', inference)
    this.#observe('vllm:request_prefill_time_seconds', (first - job.claimedAt) / 1000)
    this.#observe('vllm:request_decode_time_seconds', decode)
    const perChoice = completionTokens / job.job.sampling.n
    if (perChoice > 1) this.#observe('vllm:request_time_per_output_token_seconds', decode / (perChoice - 1))
  }

  #observe(name: HistogramName, value: number) {
    this.#histograms.get(name)?.observe(value)
  }
}

/** 1, 2, 5, 10, 20, 50, ... up to `longest`. */
function lengthBuckets(longest: number): number[] {
  const buckets: number[] = []
  for (let power = 1; power <= longest; power *= 10) {
    for (const digit of [1, 2, 5]) if (digit * power <= longest) buckets.push(digit * power)
  }
  return buckets
}
