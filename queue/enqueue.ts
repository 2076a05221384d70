// The gateway's verbs: admit a job to its pool's queue, attach to one that is there, or leave it. All may be repeated after
// a lost reply.
import { encodeJob, type Job, jobCost } from './job.ts'
import { escapeName, poolKey } from './keys.ts'
import type { Argument, Redis } from './redis.ts'

export type Limits = { maxQueuedRequests: number; maxQueuedTokens: number }
export type Admission =
  /** `existed`: the job was there already, and this gateway is one more of its readers. */
  | { admitted: true; existed: boolean; generation: number }
  | { admitted: false; code: 'queue_full'; retryAfterMs: number }

/** What is agreed about a job beside the work itself. */
export type Terms = {
  /** How long the ended job and its journal stay readable. */
  retentionMs?: number
  /** How long it goes on when nobody reads it: its gateway died, or its client may come back. */
  graceMs?: number
  /** Whatever a gateway needs to render the answer, for those that attach later. */
  view?: string
}

/** What a client is told to wait when the queue is full; the queue drains by requests, so seconds, not minutes. */
const RETRY_AFTER_MS = 1000
const RETENTION_MS = 60_000
const GRACE_MS = 30_000
/** Larger payloads (prompt ids and parameters) are refused, so that one job cannot hold a megabyte of the queue. */
export const maxJobBytes = 4 * 1024 * 1024

/** A job as lua/include/create.lua reads it. */
export function jobArguments(job: Job, terms: Terms): Argument[] {
  const { prompt, spec } = encodeJob(job)
  const { retentionMs = RETENTION_MS, graceMs = GRACE_MS, view = '' } = terms
  const bytes = prompt.length + Buffer.byteLength(spec) + Buffer.byteLength(view)
  if (bytes > maxJobBytes) throw new RangeError(`job ${job.id} is ${bytes} bytes long; the limit is ${maxJobBytes}`)
  return [
    job.id,
    job.class,
    escapeName(job.revision),
    escapeName(job.tenant),
    job.gateway,
    jobCost(job),
    job.sampling.n,
    job.adapter,
    (job.prefixes ?? []).join(','),
    job.maxWaitMs,
    retentionMs,
    graceMs,
    view,
    prompt,
    spec,
  ]
}

export async function enqueue(redis: Redis, job: Job, limits: Limits, terms: Terms = {}): Promise<Admission> {
  const args = [limits.maxQueuedRequests, limits.maxQueuedTokens, ...jobArguments(job, terms)]
  try {
    const [verdict, generation] = (await redis.script('enqueue', [poolKey(job.model)], args)) as [number, number]
    if (verdict > 0) return { admitted: true, existed: verdict === 2, generation }
  } catch (error) {
    // Redis is at maxmemory: the script was refused before it wrote anything.
    if (!/^OOM /.test((error as Error).message)) throw error
  }
  return { admitted: false, code: 'queue_full', retryAfterMs: RETRY_AFTER_MS }
}

/** Makes the gateway a reader of a job, live or ended; null where the tenant has no such job in this pool. */
export async function attach(
  redis: Redis,
  model: string,
  id: string,
  reader: { gateway: string; tenant: string },
): Promise<{ view: string; generation: number } | null> {
  const args = [id, reader.gateway, escapeName(reader.tenant)]
  const found = (await redis.script('attach', [poolKey(model)], args)) as [view: Buffer, generation: number] | null
  return found && { view: found[0].toString(), generation: found[1] }
}

/** Waiting: it leaves the queue. Running: its engine is told, and fenced whether it hears or not. */
export async function cancel(redis: Redis, model: string, id: string): Promise<void> {
  await redis.script('cancel', [poolKey(model)], [id, '', 0])
}

/** The gateway reads it no more. With its last reader the job is cancelled, or kept for its grace. */
export async function leave(redis: Redis, model: string, id: string, gateway: string, keep: boolean): Promise<void> {
  await redis.script('cancel', [poolKey(model)], [id, gateway, keep ? 1 : 0])
}
