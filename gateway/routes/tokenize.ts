// POST /tokenize and /detokenize, with vLLM's fields. `model` may be left out when only one is served.
import type { Context } from 'hono'
import type { Card } from '../../queue/card.ts'
import { readBody } from '../body.ts'
import type { Gateway, RequestEnv } from '../context.ts'
import { badRequest } from '../errors.ts'
import { parseRequest } from '../openai/issue.ts'
import { DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest } from '../openai/schema.ts'
import { conversationOf } from './conversation.ts'

export async function tokenize(c: Context<RequestEnv>, gateway: Gateway): Promise<Response> {
  const { config, prompts } = gateway
  const { value } = await readBody(c, config.maxBodyBytes)
  const isChat = value !== null && typeof value === 'object' && 'messages' in value
  const body = isChat ? parseRequest(TokenizeChatRequest, value) : parseRequest(TokenizeTextRequest, value)
  const card = await findCard(gateway, body.model)
  const ids =
    'messages' in body
      ? await prompts.chat(card, conversationOf(body))
      : await prompts.text(card, body.prompt, body.add_special_tokens ?? true)
  const strings = body.return_token_strs ? await prompts.tokenStrings(card, ids) : null
  return c.json({
    count: ids.length,
    max_model_len: card.maxModelLength,
    tokens: Array.from(ids),
    token_strs: strings,
  })
}

export async function detokenize(c: Context<RequestEnv>, gateway: Gateway): Promise<Response> {
  const body = parseRequest(DetokenizeRequest, (await readBody(c, gateway.config.maxBodyBytes)).value)
  const card = await findCard(gateway, body.model)
  const unknown = body.tokens.find((id) => id >= card.vocabularySize)
  if (unknown !== undefined) {
    throw badRequest('tokens', `tokens: id ${unknown} is outside of the vocabulary of ${card.vocabularySize} tokens.`)
  }
  return c.json({ prompt: await gateway.prompts.decode(card, body.tokens) })
}

async function findCard({ cards }: Gateway, name: string | undefined): Promise<Card> {
  if (name !== undefined) return cards.find(name)
  const [only, ...others] = await cards.list()
  if (only && others.length === 0) return only
  throw badRequest('model', 'model: must name one of the served models; see /v1/models.')
}
