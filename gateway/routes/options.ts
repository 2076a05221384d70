// What an answer looks like, as far as both endpoints decide it alike: its identity and what its chunks carry.
import type { Card } from '../../queue/card.ts'
import type { GatewayConfig } from '../config.ts'
import type { Gateway } from '../context.ts'
import type { ChunkOptions, Identity } from '../openai/chunks.ts'
import type { ChatRequest, CompletionRequest } from '../openai/schema.ts'

/** `model` is the pool's name whatever alias was asked for; the fingerprint changes when the weights do. */
export function identityOf({ clock }: Gateway, card: Card, id: string): Identity {
  const created = Math.floor(clock.now() / 1000)
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
