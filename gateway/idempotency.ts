// Idempotency-Key: a request repeated under its key is given the answer of the first one, from its first token, whether
// that is still being generated or ended a while ago: one generation, one id, one bill. A key used with another body is
// refused; a failed answer is tried again. Only requests that passed validation come here.
import { createHash } from 'node:crypto'
import type { Context } from 'hono'
import { jobState, markDone, type Remembered, remember } from '../queue/answered.ts'
import type { Terms } from '../queue/enqueue.ts'
import type { Job } from '../queue/job.ts'
import { within } from './breaker.ts'
import type { Gateway, RequestEnv } from './context.ts'
import { ApiError, badRequest, queueUnavailable } from './errors.ts'

const MAX_KEY_LENGTH = 255

/** The response to give: its jobs bear its id and seed, which may be those of an earlier request. */
export type Bound = {
  id: string
  created: number
  jobs: Job[]
  /** Beside the work: what the queue is to keep of it. */
  terms: Terms
  /** A client that is gone may come back: its job goes on for its grace. */
  keep: boolean
  /** To call when the whole answer has been heard. */
  done(): void
}

export async function bind(
  c: Context<RequestEnv>,
  gateway: Gateway,
  body: unknown,
  id: string,
  jobs: Job[],
): Promise<Bound> {
  const { redis, config, clock } = gateway
  const created = Math.floor(clock.now() / 1000)
  const graceMs = config.orphanGraceMs
  const header = c.req.header('idempotency-key')
  if (header === undefined) return { id, created, jobs, terms: { graceMs }, keep: false, done: () => {} }
  if (header === '' || header.length > MAX_KEY_LENGTH) {
    throw badRequest(null, `The Idempotency-Key header must have 1 to ${MAX_KEY_LENGTH} characters.`)
  }
  const key = { tenant: c.var.tenant, key: header, ttlMs: config.idempotencyTtlMs }
  const own = { body: bodyHash(c.req.path, body), id, seed: jobs[0]!.sampling.seed, created, isDone: false }
  const ask = (failed?: string) =>
    within(clock, remember(redis, key, own, failed)).catch((error) => {
      throw queueUnavailable(error)
    })
  let response = await ask()
  if (response.body !== own.body) throw mismatch()
  if (response.id !== id) {
    const states = await within(
      clock,
      Promise.all(renamed(jobs, response).map((job) => jobState(redis, job.model, job.id))),
    ).catch((error) => {
      throw queueUnavailable(error)
    })
    if (states.some((state) => state === 'failed' || state === 'cancelled')) response = await ask(response.id)
    else if (response.isDone && states.includes('unknown')) throw expired()
  }
  return {
    id: response.id,
    created: response.created,
    jobs: renamed(jobs, response),
    terms: { graceMs, retentionMs: config.idempotentRetentionMs },
    keep: true,
    done: () => {
      markDone(redis, key, response).catch((err) => gateway.log.error({ err }, 'an Idempotency-Key was not marked'))
    },
  }
}

/** Ids as createJobs forms them. */
function renamed(jobs: Job[], { id, seed }: Remembered): Job[] {
  return jobs.map((job, i) => ({
    ...job,
    id: jobs.length === 1 ? id : `${id}-${i}`,
    sampling: { ...job.sampling, seed },
  }))
}

function bodyHash(path: string, body: unknown): string {
  return createHash('sha256')
    .update(`${path}\n${canonical(body)}`)
    .digest('base64url')
}

/** JSON whose keys are in order: what a client's library reorders is the same body. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${fields.map(([name, field]) => `${JSON.stringify(name)}:${canonical(field)}`).join(',')}}`
}

const noRetry = { 'x-should-retry': 'false' }

function mismatch(): ApiError {
  const message = 'This Idempotency-Key was used with another request body. Use a new key for a new request.'
  return new ApiError(422, 'idempotency_mismatch', null, message, noRetry)
}

function expired(): ApiError {
  const message = 'The answer to this Idempotency-Key was given in full and is no longer kept. Use a new key.'
  return new ApiError(410, 'idempotency_expired', null, message, noRetry)
}
