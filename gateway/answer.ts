// How the events of a generation become an HTTP answer, streamed or whole. Either way nothing is sent before the first
// token (or, for a stream, config.headersAfterMs): until then a failure is still an HTTP status. A client that hangs up
// cancels its jobs at once.
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { Context } from 'hono'
import type { Usage } from '../queue/event.ts'
import type { Gateway, RequestEnv } from './context.ts'
import { ApiError, internalError } from './errors.ts'
import { Generation, type Listener } from './generation.ts'
import type { Bound } from './idempotency.ts'
import type { Chunks } from './openai/chunks.ts'
import { SseWriter } from './openai/sse.ts'
import type { Choice } from './openai/whole.ts'

export async function answerWhole(
  c: Context<RequestEnv>,
  gateway: Gateway,
  { jobs, terms, keep, done }: Bound,
  build: (choices: Choice[], usage: Usage) => object,
): Promise<Response> {
  const { promise: usage, resolve, reject } = Promise.withResolvers<Usage>()
  usage.catch(() => {}) // it may fail before the last job is in its queue, when nobody waits for it yet
  const choices = jobs.flatMap((job) => Array.from({ length: job.sampling.n }, emptyChoice))
  const generation = await Generation.start(
    gateway,
    jobs,
    {
      tokens: (choice, tokens) => {
        for (const token of tokens) choices[choice]!.tokens.push(token)
      },
      finish: (choice, finish) => {
        choices[choice]!.finish = finish
      },
      done: (usage) => {
        done()
        resolve(usage)
      },
      failed: reject,
    },
    { terms, keep },
  )
  onHangUp(c, () => {
    generation.cut()
    reject(clientGone())
  })
  const object = build(choices, await usage)
  return c.body(JSON.stringify(object), 200, { 'content-type': 'application/json' })
}

function emptyChoice(): Choice {
  return { tokens: [], finish: { text: '', reason: 'abort', stopReason: null } }
}

/** A stream to write: how its events look, and how it is begun. */
export type Streamed = {
  choices: number
  chunks: Chunks
  includeUsage: boolean
  start(listener: Listener): Promise<Generation>
  /** Every token has been heard. */
  done(): void
}

export async function answerStream(
  c: Context<RequestEnv>,
  gateway: Gateway,
  { choices, chunks, includeUsage, start, done }: Streamed,
): Promise<Response> {
  const out = c.env.outgoing
  if (!out) throw internalError(new Error('streaming needs a node:http server'))
  const { clock, config } = gateway
  const opened = Promise.withResolvers<void>()
  let sse: SseWriter | null = null
  /** Events that came before the headers went out. */
  let early = ''
  let begun = false
  let ended = false
  let failure: ApiError | null = null

  const write = (events: string) => {
    if (sse) sse.write(events)
    else early += events
    opened.resolve()
  }
  /** Every choice's opening chunk goes out with the first token of any: clients take it for the first token. */
  const begin = () => {
    if (begun) return
    begun = true
    write(Array.from({ length: choices }, (_, choice) => chunks.open(choice)).join(''))
  }
  const generation = await start({
    tokens(choice, tokens) {
      begin()
      write(chunks.tokens(choice, tokens))
    },
    finish(choice, finish) {
      begin()
      write(chunks.finish(choice, finish))
    },
    done(usage) {
      done()
      if (includeUsage) write(chunks.usage(usage))
      ended = true
      sse?.end()
      opened.resolve()
    },
    failed(error) {
      failure = error
      sse?.fail(error.envelope())
      opened.resolve()
    },
  })
  onHangUp(c, () => {
    generation.cut()
    failure = clientGone()
    opened.resolve()
  })
  const stopTimer = clock.after(config.headersAfterMs, opened.resolve)
  await opened.promise
  stopTimer()
  if (failure) throw failure
  sse = new SseWriter(out, c.res.headers, clock, {
    ...config,
    onFull: () => generation.pause(),
    onDrained: () => generation.resume(),
    onGone: () => generation.cut(),
  })
  sse.write(early)
  if (ended) sse.end()
  // Hono merges a response into one that exists, and the merged one would be sent a second time.
  c.res = undefined
  c.res = RESPONSE_ALREADY_SENT
  return c.res
}

/** `gone` is called when the connection closes before the answer was written. */
function onHangUp(c: Context<RequestEnv>, gone: () => void): void {
  const out = c.env?.outgoing
  if (!out) c.req.raw.signal.addEventListener('abort', gone, { once: true })
  else if (out.destroyed) gone()
  else out.once('close', () => out.writableEnded || gone())
}

/** Nobody reads this answer; 499 is what nginx logs for it. */
function clientGone(): ApiError {
  return new ApiError(499, 'client_closed_request', null, 'The client closed the connection.')
}
