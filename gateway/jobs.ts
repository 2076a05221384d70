// A validated request and its encoded prompts -> the jobs that go onto the queue. Exact lengths are known here, so what
// can never run is a 400 now and not a failure later.
import { createHmac } from 'node:crypto'
import type { Context } from 'hono'
import type { Card } from '../queue/card.ts'
import type { Job } from '../queue/job.ts'
import { prefixHashes } from '../queue/prefix.ts'
import type { Gateway, RequestEnv } from './context.ts'
import { badRequest } from './errors.ts'
import { maxTokens, type OpenSampling } from './openai/sampling.ts'
import type { ChatRequest, CompletionRequest } from './openai/schema.ts'
import type { TokenIds } from './prompt/tokenizer.ts'

/** Lower classes are served first; `flex` asks for less. */
const CLASS = { default: 1, flex: 2 }

/** Blocks by which a job may be led to an engine that holds them; job.ts takes no more. */
const ROUTED_BLOCKS = 16

export type JobInput = {
  id: string
  card: Card
  body: ChatRequest | CompletionRequest
  /** The field the prompt came in, for error messages. */
  param: 'messages' | 'prompt'
  prompts: TokenIds[]
  sampling: OpenSampling
  /** What the client asked for; `fallback` when it asked for nothing and the model says nothing. */
  maxTokens: number | undefined
  fallback?: number
}

export function createJobs(c: Context<RequestEnv>, gateway: Gateway, input: JobInput): Job[] {
  const { id, card, body, param, sampling } = input
  const { config } = gateway
  const choices = input.prompts.length * sampling.n
  if (choices > config.maxN) {
    const message = `${param}: ${input.prompts.length} prompts with n = ${sampling.n} are more than ${config.maxN} choices.`
    throw badRequest(param, message)
  }
  const { tenant } = c.var
  const saltOfRequest = salt(config.cacheSecret, tenant, body.cache_salt)
  return input.prompts.map((ids, i) => {
    const prompt = truncate(ids, body.truncate_prompt_tokens, card.maxModelLength - (input.maxTokens ?? 1))
    if (prompt.length === 0) throw badRequest(param, `${param}: must encode to at least one token.`)
    const length = { tokens: prompt.length, param }
    const tokens = maxTokens(card, length, sampling.n, input.maxTokens, input.fallback)
    if (sampling.minTokens > tokens) {
      throw badRequest('min_tokens', `min_tokens: is ${sampling.minTokens}, more than the ${tokens} of max_tokens.`)
    }
    return {
      id: input.prompts.length === 1 ? id : `${id}-${i}`,
      model: card.name,
      revision: card.revision,
      tenant,
      gateway: gateway.name,
      class: body.service_tier === 'flex' ? CLASS.flex : CLASS.default,
      adapter: 0,
      salt: saltOfRequest,
      prefixes: prefixHashes(prompt, {
        blockSize: card.blockSize,
        salt: saltOfRequest,
        adapter: 0,
        limit: ROUTED_BLOCKS,
      }),
      prompt,
      sampling: { ...sampling, maxTokens: tokens },
      maxWaitMs: config.requestTimeoutMs,
    }
  })
}

/** vLLM's truncate_prompt_tokens: the last k tokens; -1 for as many as leave room for the answer. */
function truncate(ids: TokenIds, asked: number | undefined, room: number): TokenIds {
  if (asked === undefined) return ids
  const keep = asked === -1 ? Math.max(1, room) : asked
  return ids.length > keep ? ids.slice(ids.length - keep) : ids
}

/** Prefixes are shared within a tenant; a client's own salt can only narrow that. */
function salt(secret: string, tenant: string, own = ''): string {
  return createHmac('sha256', secret).update(`${tenant}\0${own}`).digest('base64url').slice(0, 22)
}

/** A fresh seed, so that a retry of the job on another engine draws the same tokens. */
export function randomSeed(gateway: Gateway): string {
  return gateway.random(8).readBigInt64LE().toString()
}
