// GET /v1/models and /v1/models/<id> (ids may hold slashes): one entry per name a model answers to.
import type { Context } from 'hono'
import type { Card } from '../../queue/card.ts'
import type { Gateway, RequestEnv } from '../context.ts'

export async function models(c: Context<RequestEnv>, { cards }: Gateway): Promise<Response> {
  const list = await cards.list()
  const data = list.flatMap((card) => [card.name, ...card.aliases].map((name) => modelObject(card, name)))
  return c.json({ object: 'list', data })
}

export async function model(c: Context<RequestEnv>, { cards }: Gateway): Promise<Response> {
  const name = c.req.param('id') ?? ''
  return c.json(modelObject(await cards.find(name), name))
}

function modelObject(card: Card, name: string) {
  return {
    id: name,
    object: 'model',
    created: card.created,
    owned_by: 'pagestream',
    root: card.root,
    parent: null,
    max_model_len: card.maxModelLength,
    permission: [],
  }
}
