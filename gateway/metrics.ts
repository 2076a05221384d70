// Every metric a gateway exposes, declared in one place. Latencies are the client's: they begin with the request and
// include the queue; an engine's own (vllm:*) begin where it claims the job. In `serve` both are on one page, so no name
// may be used twice. No tenant labels on histograms: each label value would cost twenty series.
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { PoolState } from '../queue/models.ts'

const FIRST_TOKEN = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
]
const BETWEEN_TOKENS = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
const WHOLE_REQUEST = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
export function createMetrics() {
  const registry = new Registry()
  const registers = [registry]
  const model = ['model_name'] as const
  const pool = ['model'] as const
  const histogram = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name, help, buckets, labelNames: model, registers })
  const gauge = (name: string, help: string) => new Gauge({ name, help, labelNames: pool, registers })
  return {
    registry,
    requests: new Counter({
      name: 'http_requests_total',
      help: 'Answered HTTP requests.',
      labelNames: ['handler', 'method', 'status'] as const,
      registers,
    }),
    firstToken: histogram('pagestream_request_first_token_seconds', 'From request to first token.', FIRST_TOKEN),
    betweenTokens: histogram('pagestream_request_inter_token_seconds', 'Between tokens of one choice.', BETWEEN_TOKENS),
    wholeRequest: histogram('pagestream_request_seconds', 'From request to last token.', WHOLE_REQUEST),
    rejected: new Counter({
      name: 'vllm:admission_rejections_total',
      help: 'Requests refused because the queue of the model was full.',
      labelNames: model,
      registers,
    }),
    open: new Gauge({ name: 'pagestream_gateway_open_requests', help: 'Requests being generated.', registers }),
    pools: {
      queued: gauge('pagestream_pool_queued', 'Jobs waiting.'),
      queuedTokens: gauge('pagestream_pool_queued_tokens', 'KV tokens the waiting jobs may need.'),
      running: gauge('pagestream_pool_running', 'Jobs an engine holds.'),
      engines: gauge('pagestream_pool_engines', 'Engines with a live lease.'),
      desired: gauge('pagestream_pool_desired', 'Engines the pool needs now: what a scaler should read.'),
      lastUse: gauge('pagestream_pool_last_use_seconds', 'Unix time of the last admission; 0 for never.'),
      oldestAge: gauge('pagestream_pool_oldest_age_seconds', 'How long the oldest waiting job has waited.'),
    },
  }
}
export type Metrics = ReturnType<typeof createMetrics>

/** Called per scrape, with the state of every pool that has a card. */
export function setPools({ pools }: Metrics, states: { model: string; state: PoolState }[]): void {
  for (const gauge of Object.values(pools)) gauge.reset()
  for (const { model, state } of states) {
    pools.queued.set({ model }, state.queued)
    pools.queuedTokens.set({ model }, state.queuedTokens)
    pools.running.set({ model }, state.running)
    pools.engines.set({ model }, state.engines)
    pools.desired.set({ model }, state.desired)
    pools.lastUse.set({ model }, state.lastUse / 1000)
    pools.oldestAge.set({ model }, state.oldestAgeMs / 1000)
  }
}
