// POST /v1/chat/completions
import type { Context } from 'hono'
import { answerStream, answerWhole } from '../answer.ts'
import { readBody } from '../body.ts'
import type { Gateway, RequestEnv } from '../context.ts'
import { createJobs, randomSeed } from '../jobs.ts'
import { ChatChunks } from '../openai/chunks.ts'
import { parseRequest } from '../openai/issue.ts'
import { chatSampling, seedText } from '../openai/sampling.ts'
import { ChatRequest } from '../openai/schema.ts'
import { chatCompletion } from '../openai/whole.ts'
import { conversationOf } from './conversation.ts'

export async function chat(c: Context<RequestEnv>, gateway: Gateway): Promise<Response> {
  const { config, clock, cards, prompts, random } = gateway
  const raw = await readBody(c, config.maxBodyBytes)
  const body = parseRequest(ChatRequest, raw.value)
  const card = await cards.find(body.model)
  c.set('model', card.name)
  const seed = body.seed === undefined ? randomSeed(gateway) : seedText(body.seed, raw.digits('seed'))
  const sampling = chatSampling(body, card, config, seed)
  const prompt = await prompts.chat(card, conversationOf(body))

  const id = `chatcmpl-${random(16).toString('hex')}`
  const jobs = createJobs(c, gateway, {
    id,
    card,
    body,
    param: 'messages',
    prompts: [prompt],
    sampling,
    maxTokens: body.max_completion_tokens ?? body.max_tokens,
  })

  const created = Math.floor(clock.now() / 1000)
  const identity = { id, created, model: card.name, fingerprint: `fp_${card.revision.slice(0, 12)}` }
  const role = config.responseRole
  const options = {
    logprobs: sampling.logprobs !== null,
    tokenNames:
      (body.return_tokens_as_token_ids ?? config.returnTokensAsTokenIds) ? ('ids' as const) : ('text' as const),
    returnTokenIds: body.return_token_ids ?? false,
    promptTokens: jobs[0]!.prompt.length,
  }
  if (!body.stream) {
    const promptTokenIds = options.returnTokenIds ? { promptTokenIds: Array.from(jobs[0]!.prompt) } : {}
    return answerWhole(c, gateway, jobs, (choices, usage) =>
      chatCompletion(identity, choices, usage, { ...options, ...promptTokenIds, role }),
    )
  }
  const includeUsage = (body.stream_options?.include_usage ?? false) || config.enableForceIncludeUsage
  const continuousUsage = includeUsage && (body.stream_options?.continuous_usage_stats ?? false)
  const chunks = new ChatChunks(identity, { ...options, includeUsage, continuousUsage }, role)
  return answerStream(c, gateway, jobs, chunks, includeUsage)
}
