// GET /v1/streams/<id>?starting_after=<position>: the events of an answer, live or ended, from its beginning or after the
// position its client has (openai/positions.ts), through any gateway. The id is that of the chunks; only the tenant that
// asked finds it.
import type { Context } from 'hono'
import { attach } from '../../queue/enqueue.ts'
import { answerStream } from '../answer.ts'
import { within } from '../breaker.ts'
import type { Gateway, RequestEnv } from '../context.ts'
import { ApiError, badRequest, queueUnavailable } from '../errors.ts'
import { Generation, type Part } from '../generation.ts'
import { Positions } from '../openai/positions.ts'
import { createChunks, type View } from '../view.ts'

export async function streams(c: Context<RequestEnv>, gateway: Gateway): Promise<Response> {
  gateway.breaker.check()
  const id = c.req.param('id') ?? ''
  if (!/^[\w-]{1,70}$/.test(id)) throw notFound(id)
  const { view, parts } = await find(c, gateway, id)
  const choices = parts.reduce((sum, { n }) => sum + n, 0)
  const after = position(c.req.query('starting_after'), choices)
  return answerStream(c, gateway, {
    choices,
    chunks: new Positions(createChunks(view), choices, after),
    includeUsage: view.options.includeUsage,
    start: (listener) => Generation.follow(gateway, parts, listener, view.keep),
    done: () => {},
  })
}

/** An answer says its id, not its model, so every pool is asked; an answer to several prompts has numbered jobs. */
async function find(c: Context<RequestEnv>, gateway: Gateway, id: string): Promise<{ view: View; parts: Part[] }> {
  const { redis, cards, clock, name } = gateway
  const reader = { gateway: name, tenant: c.var.tenant }
  const join = (model: string, job: string) =>
    within(clock, attach(redis, model, job, reader)).catch((error) => {
      throw queueUnavailable(error)
    })
  for (const { name: model } of await cards.list()) {
    const [whole, first] = await Promise.all([join(model, id), join(model, `${id}-0`)])
    const found = whole ?? first
    if (!found) continue
    const view = JSON.parse(found.view) as View
    c.set('model', model)
    const others = await Promise.all(view.jobs.slice(1).map((job) => join(model, job.id)))
    if (others.includes(null)) throw notFound(id)
    const generations = [found, ...others].map((one) => one!.generation)
    return { view, parts: view.jobs.map((job, i) => ({ ...job, model, generation: generations[i]! })) }
  }
  throw notFound(id)
}

function position(text: string | undefined, choices: number): number[] {
  if (text === undefined) return []
  const parts = text.split('.')
  if (parts.length === choices && parts.every((part) => /^\d{1,9}$/.test(part))) return parts.map(Number)
  const form = choices === 1 ? 'a number' : `${choices} numbers joined by dots, one for each choice`
  throw badRequest('starting_after', `starting_after: must be the id of an event of this stream, ${form}.`)
}

function notFound(id: string): ApiError {
  const shown = JSON.stringify(id.slice(0, 100))
  return new ApiError(404, 'stream_not_found', 'id', `There is no stream ${shown}; it may have expired.`)
}
