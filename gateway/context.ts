// What every route needs, made once per gateway: connections, clock and chance are arguments, never globals.
import { randomBytes } from 'node:crypto'
import type { HttpBindings } from '@hono/node-server'
import type { Clock } from '../queue/clock.ts'
import type { Redis } from '../queue/redis.ts'
import type { Streams } from '../queue/stream.ts'
import { Breaker } from './breaker.ts'
import type { GatewayConfig } from './config.ts'
import type { ApiError } from './errors.ts'
import { createMetrics, type Metrics } from './metrics.ts'
import { Cards } from './prompt/card.ts'
import { RenderPool } from './prompt/pool.ts'
import { Prompts } from './prompt/prompts.ts'

/** Cryptographic in production, counted in tests. */
export type Random = (bytes: number) => Buffer

/** The part of pino's interface the gateway uses. */
export type Log = {
  info(fields: object, message: string): void
  error(fields: object, message: string): void
}

export type GatewayOptions = {
  config: GatewayConfig
  redis: Redis
  streams: Streams
  clock: Clock
  /** This process's channel, which `streams` was opened with: where engines publish its tokens. */
  name: string
  random?: Random
  log?: Log
  /** More text for /metrics: that of an engine in the same process. */
  extraMetrics?: () => Promise<string>
  /** Why requests would only wait though Redis answers, or null: an engine in the same process is still loading. */
  obstacle?: () => string | null
}

export type Gateway = Required<GatewayOptions> & {
  cards: Cards
  pool: RenderPool
  prompts: Prompts
  breaker: Breaker
  metrics: Metrics
  /** Requests being generated now; drain waits for them, shutdown fails them. */
  open: Set<{ fail(error: ApiError): void }>
  draining: boolean
}

/** `incoming` and `outgoing` are absent under app.request(). */
export type RequestEnv = {
  Bindings: Partial<HttpBindings>
  Variables: { requestId: string; tenant: string; model: string }
}

const silent: Log = { info: () => {}, error: () => {} }

const DRAWN_AHEAD = 4096

/** A system call for each id would cost more than the id: bytes are drawn many at a time, and each is given out once. */
function drawAhead(): Random {
  let pool = Buffer.alloc(0)
  let next = 0
  return (bytes) => {
    if (next + bytes > pool.length) {
      pool = randomBytes(Math.max(DRAWN_AHEAD, bytes))
      next = 0
    }
    next += bytes
    return pool.subarray(next - bytes, next)
  }
}

export function createGateway(options: GatewayOptions): Gateway {
  const { redis, clock, random = drawAhead() } = options
  const cards = new Cards(redis, clock, random(8).readBigUInt64LE().toString())
  const pool = new RenderPool(clock)
  return {
    log: silent,
    extraMetrics: async () => '',
    obstacle: () => null,
    ...options,
    random,
    cards,
    pool,
    prompts: new Prompts(cards, pool, clock),
    breaker: new Breaker(redis, clock),
    metrics: createMetrics(),
    open: new Set(),
    draining: false,
  }
}
