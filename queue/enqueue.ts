// The gateway's verbs: admit a job to its pool's queue, or cancel it. Both may be repeated after a lost reply.
import { encodeJob, type Job, jobCost } from './job.ts'
import { escapeName, poolKey } from './keys.ts'
import type { Redis } from './redis.ts'

export type Limits = { maxQueuedRequests: number; maxQueuedTokens: number }
export type Admission = { admitted: true } | { admitted: false; code: 'queue_full'; retryAfterMs: number }

/** What a client is told to wait when the queue is full; the queue drains by requests, so seconds, not minutes. */
const RETRY_AFTER_MS = 1000
/** How long a finished job and its journal stay readable. */
const RETENTION_MS = 60_000
/** Larger payloads (prompt ids and parameters) are refused, so that one job cannot hold a megabyte of the queue. */
export const maxJobBytes = 4 * 1024 * 1024

export async function enqueue(
  redis: Redis,
  job: Job,
  limits: Limits,
  options: { retentionMs?: number } = {},
): Promise<Admission> {
  const { prompt, spec } = encodeJob(job)
  const bytes = prompt.length + Buffer.byteLength(spec)
  if (bytes > maxJobBytes) throw new RangeError(`job ${job.id} is ${bytes} bytes long; the limit is ${maxJobBytes}`)
  try {
    const admitted = await redis.script(
      'enqueue',
      [poolKey(job.model)],
      [
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
        options.retentionMs ?? RETENTION_MS,
        limits.maxQueuedRequests,
        limits.maxQueuedTokens,
        prompt,
        spec,
      ],
    )
    if (admitted === 1) return { admitted: true }
  } catch (error) {
    // Redis is at maxmemory: the script was refused before it wrote anything.
    if (!/^OOM /.test((error as Error).message)) throw error
  }
  return { admitted: false, code: 'queue_full', retryAfterMs: RETRY_AFTER_MS }
}

/** Waiting: it leaves the queue. Running: its engine is told, and fenced whether it hears or not. */
export async function cancel(redis: Redis, model: string, id: string): Promise<void> {
  await redis.script('cancel', [poolKey(model)], [id])
}
