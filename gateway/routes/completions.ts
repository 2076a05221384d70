// POST /v1/completions: each prompt is one job; choices are numbered prompt * n + choice.
import type { Context } from 'hono'
import type { Card } from '../../queue/card.ts'
import { answerStream, answerWhole } from '../answer.ts'
import { readBody } from '../body.ts'
import type { Gateway, RequestEnv } from '../context.ts'
import { badRequest } from '../errors.ts'
import { bind } from '../idempotency.ts'
import { createJobs, randomSeed } from '../jobs.ts'
import { parseRequest } from '../openai/issue.ts'
import { completionSampling, completionTokens, seedText } from '../openai/sampling.ts'
import { CompletionRequest } from '../openai/schema.ts'
import { textCompletion } from '../openai/whole.ts'
import type { TokenIds } from '../prompt/tokenizer.ts'
import type { View } from '../view.ts'
import { identityOf, jobsOf, optionsOf, streamOf } from './options.ts'

export async function completions(c: Context<RequestEnv>, gateway: Gateway): Promise<Response> {
  const { config, cards, prompts: encoders, random, breaker } = gateway
  breaker.check()
  const raw = await readBody(c, config.maxBodyBytes)
  const body = parseRequest(CompletionRequest, raw.value)
  const card = await cards.find(body.model)
  c.set('model', card.name)
  const seed = body.seed === undefined ? randomSeed(gateway) : seedText(body.seed, raw.digits('seed'))
  const badWords = await encoders.badWords(card, body.bad_words)
  const sampling = completionSampling(body, card, config, { seed, badWords })
  const inputs = promptList(body.prompt)
  if (inputs.length > config.maxN) {
    throw badRequest('prompt', `prompt: ${inputs.length} prompts; this server takes at most ${config.maxN}.`)
  }
  const prompts = await Promise.all(
    inputs.map((input) => encode(gateway, card, input, body.add_special_tokens ?? true)),
  )

  const id = `cmpl-${random(16).toString('hex')}`
  const jobs = createJobs(c, gateway, {
    id,
    card,
    body,
    param: 'prompt',
    prompts,
    sampling,
    // Asked for nothing but the prompt, the engine says one token, which is not passed on; so does vLLM.
    maxTokens: body.max_tokens === 0 ? 1 : body.max_tokens,
    fallback: completionTokens,
  })

  const echoes = body.echo ? await Promise.all(inputs.map((input) => echo(gateway, card, input))) : []
  const promptOf = (choice: number) => Math.floor(choice / sampling.n)
  const shape = {
    echo: (choice: number) => echoes[promptOf(choice)] ?? '',
    continues: body.max_tokens !== 0,
    promptLogprobs: body.prompt_logprobs !== undefined,
    promptTokenIds: (choice: number) => Array.from(jobs[promptOf(choice)]!.prompt),
  }
  const bound = await bind(c, gateway, raw.value, id, jobs)
  const identity = identityOf(card, bound)
  const promptTokens = jobs.reduce((sum, job) => sum + job.prompt.length, 0)
  const options = optionsOf(body, config, sampling.logprobs, promptTokens)
  const { continues } = shape
  const part = { jobs: jobsOf(bound), keep: bound.keep }
  const view: View = { kind: 'completion', identity, options, echoes, continues, ...part }
  bound.terms.view = JSON.stringify(view)
  if (body.stream) return answerStream(c, gateway, streamOf(gateway, bound, view))
  return answerWhole(c, gateway, bound, (choices, usage) =>
    textCompletion(identity, choices, usage, { ...options, ...shape }),
  )
}

type Prompt = string | number[]

function promptList(prompt: CompletionRequest['prompt']): Prompt[] {
  if (typeof prompt === 'string') return [prompt]
  return typeof prompt[0] === 'number' ? [prompt as number[]] : (prompt as Prompt[])
}

async function encode(gateway: Gateway, card: Card, prompt: Prompt, addSpecialTokens: boolean): Promise<TokenIds> {
  if (typeof prompt === 'string') return gateway.prompts.text(card, prompt, addSpecialTokens)
  const unknown = prompt.find((id) => id >= card.vocabularySize)
  if (unknown === undefined) return Uint32Array.from(prompt)
  throw badRequest(
    'prompt',
    `prompt: token id ${unknown} is outside of the vocabulary of ${card.vocabularySize} tokens.`,
  )
}

async function echo(gateway: Gateway, card: Card, prompt: Prompt): Promise<string> {
  return typeof prompt === 'string' ? prompt : gateway.prompts.decode(card, prompt)
}
