// What an answer looks like, as far as both endpoints decide it alike: its identity and what its chunks carry.
import type { Card } from '../../queue/card.ts'
import type { Streamed } from '../answer.ts'
import type { GatewayConfig } from '../config.ts'
import type { Gateway } from '../context.ts'
import { Generation } from '../generation.ts'
import type { Bound } from '../idempotency.ts'
import type { ChunkOptions, Identity } from '../openai/chunks.ts'
import { Positions } from '../openai/positions.ts'
import type { ChatRequest, CompletionRequest } from '../openai/schema.ts'
import { createChunks, type View } from '../view.ts'

/** `model` is the pool's name whatever alias was asked for; the fingerprint changes when the weights do. */
export function identityOf(card: Card, { id, created }: Bound): Identity {
  return { id, created, model: card.name, fingerprint: `fp_${card.revision.slice(0, 12)}` }
}

export function optionsOf(
  body: ChatRequest | CompletionRequest,
  config: GatewayConfig,
  logprobs: number | null,
  promptTokens: number,
): ChunkOptions {
  const { include_usage: asked = false, continuous_usage_stats: continuous = false } = body.stream_options ?? {}
  const includeUsage = asked || config.enableForceIncludeUsage
  return {
    includeUsage,
    continuousUsage: includeUsage && continuous,
    logprobs: logprobs !== null,
    tokenNames: (body.return_tokens_as_token_ids ?? config.returnTokensAsTokenIds) ? 'ids' : 'text',
    returnTokenIds: body.return_token_ids ?? false,
    promptTokens,
  }
}

/** Events carry their positions where the client may come back for the rest. */
export function streamOf(gateway: Gateway, bound: Bound, view: View): Streamed {
  const choices = view.jobs.reduce((sum, { n }) => sum + n, 0)
  const chunks = createChunks(view)
  return {
    choices,
    chunks: bound.keep ? new Positions(chunks, choices) : chunks,
    includeUsage: view.options.includeUsage,
    start: (listener) => Generation.start(gateway, bound.jobs, listener, bound),
    done: bound.done,
  }
}

/** The jobs' part of a view. */
export const jobsOf = ({ jobs }: Bound): View['jobs'] => jobs.map(({ id, sampling }) => ({ id, n: sampling.n }))
