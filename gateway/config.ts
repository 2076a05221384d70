// Everything a gateway can be told, with defaults that work on a laptop. Read once by whoever starts the gateway
// (scripts/, main.ts), frozen, and passed as an argument. Unknown options are refused: a typo must not be a default.
import { z } from 'zod'

const milliseconds = z.int().min(0)

export const GatewayConfig = z.strictObject({
  host: z.string().default('127.0.0.1'),
  /** 0 takes any free port. */
  port: z.int().min(0).max(65_535).default(8000),
  /** Accepted bearer keys; with none, every key (and no key) is accepted, as with vLLM. */
  apiKeys: z.array(z.string().min(1)).default([]),
  /** Prefix of every route when a proxy forwards it, e.g. "/llm". */
  rootPath: z
    .string()
    .regex(/^(\/[\w.~-]+)*$/, 'must look like /llm, without a trailing slash')
    .default(''),
  /** Origins a browser may call from; "*" for any. Empty: no CORS headers. */
  allowedOrigins: z.array(z.string()).default([]),

  maxBodyBytes: z.int().min(1).default(10_000_000),
  /** Bounds of one model's queue; beyond them the answer is 503 queue_full. */
  maxQueuedRequests: z.int().min(1).default(10_000),
  maxQueuedTokens: z.int().min(1).default(50_000_000),
  /** Most choices of one request, over all of its prompts. */
  maxN: z.int().min(1).max(128).default(128),
  maxLogprobs: z.int().min(0).max(100).default(20),

  /** A request that has got no token for this long, waiting or running, is given up. */
  requestTimeoutMs: milliseconds.default(600_000),
  /** A stream's 200 goes out with its first token or after this long, so that a 503 stays possible until then. */
  headersAfterMs: milliseconds.default(5000),
  /** An SSE comment is sent when a stream has been silent this long. */
  keepAliveCommentMs: z.int().min(1).default(10_000),
  /** A client that reads nothing for this long is cut off. */
  stalledReaderMs: z.int().min(1).default(60_000),
  /** Must exceed the idle timeout of the load balancer in front, or it reuses connections we have just closed. */
  keepAliveTimeoutMs: milliseconds.default(75_000),
  /** How long a job goes on when its gateway has died, or when its client is gone and has an Idempotency-Key to come
   * back with. Gateways say every second that they live, so it cannot be much shorter than a few. */
  orphanGraceMs: z.int().min(3000).default(30_000),
  /** How long an Idempotency-Key is remembered. */
  idempotencyTtlMs: z.int().min(1).default(86_400_000),
  /** How long the tokens of an ended answer with an Idempotency-Key can be replayed. */
  idempotentRetentionMs: z.int().min(1).default(600_000),
  /** How long open requests may go on after close() before they are cut. */
  drainTimeoutMs: milliseconds.default(30_000),

  /** Answer every stream with a usage chunk, asked for or not. */
  enableForceIncludeUsage: z.boolean().default(false),
  /** Write tokens of log-probabilities as "token_id:123". */
  returnTokensAsTokenIds: z.boolean().default(false),
  /** `role` of every chat answer. */
  responseRole: z.string().min(1).default('assistant'),
  /** Key of the HMAC that separates tenants in the prefix cache; the same on every gateway of a deployment. */
  cacheSecret: z.string().default(''),
})
export type GatewayConfig = z.infer<typeof GatewayConfig>
