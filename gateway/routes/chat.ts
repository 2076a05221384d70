// POST /v1/chat/completions
import type { Context } from 'hono'
import { answerStream, answerWhole } from '../answer.ts'
import { readBody } from '../body.ts'
import type { Gateway, RequestEnv } from '../context.ts'
import { bind } from '../idempotency.ts'
import { createJobs, randomSeed } from '../jobs.ts'
import { parseRequest } from '../openai/issue.ts'
import { chatSampling, seedText } from '../openai/sampling.ts'
import { ChatRequest } from '../openai/schema.ts'
import { chatCompletion } from '../openai/whole.ts'
import type { View } from '../view.ts'
import { conversationOf } from './conversation.ts'
import { identityOf, jobsOf, optionsOf, streamOf } from './options.ts'

export async function chat(c: Context<RequestEnv>, gateway: Gateway): Promise<Response> {
  const { config, cards, prompts, random, breaker } = gateway
  breaker.check()
  const raw = await readBody(c, config.maxBodyBytes)
  const body = parseRequest(ChatRequest, raw.value)
  const card = await cards.find(body.model)
  c.set('model', card.name)
  const seed = body.seed === undefined ? randomSeed(gateway) : seedText(body.seed, raw.digits('seed'))
  const badWords = await prompts.badWords(card, body.bad_words)
  const sampling = chatSampling(body, card, config, { seed, badWords })
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

  const bound = await bind(c, gateway, raw.value, id, jobs)
  const identity = identityOf(card, bound)
  const ids = jobs[0]!.prompt
  const options = optionsOf(body, config, sampling.logprobs, ids.length)
  const role = config.responseRole
  const view: View = { kind: 'chat', identity, options, role, jobs: jobsOf(bound), keep: bound.keep }
  bound.terms.view = JSON.stringify(view)
  if (body.stream) return answerStream(c, gateway, streamOf(gateway, bound, view))
  const promptLogprobs = body.prompt_logprobs !== undefined
  const promptTokenIds = options.returnTokenIds ? Array.from(ids) : null
  return answerWhole(c, gateway, bound, (choices, usage) =>
    chatCompletion(identity, choices, usage, { ...options, role, promptTokenIds, promptLogprobs }),
  )
}
