// Idempotency keys: which response a client's key stands for, for as long as it is remembered. The tokens themselves are
// in the journal, found by the response's id. Called by gateways.
import { idempotencyKey, jobKey } from './keys.ts'
import type { Argument, Redis } from './redis.ts'

export type Remembered = {
  /** Hash of the request body the key was first used with. */
  body: string
  id: string
  seed: string
  /** Unix time in s. */
  created: number
  /** Every token was delivered once: if they are gone now they have expired. */
  isDone: boolean
}

export type Key = { tenant: string; key: string; ttlMs: number }

/** The response the key stands for: an earlier one, or from now on this. A `failed` one is replaced. */
export async function remember(redis: Redis, key: Key, response: Remembered, failed = ''): Promise<Remembered> {
  return ask(redis, key, response, failed)
}

/** The response was answered in full. */
export async function markDone(redis: Redis, key: Key, response: Remembered): Promise<void> {
  await ask(redis, key, { ...response, isDone: true }, '')
}

async function ask(redis: Redis, { tenant, key, ttlMs }: Key, response: Remembered, failed: string) {
  const { body, id, seed, created, isDone } = response
  const args: Argument[] = [failed, ttlMs, body, id, seed, created, isDone ? 1 : 0]
  const found = (await redis.script('remember', [idempotencyKey(tenant, key)], args)) as Buffer[]
  const [foundBody, foundId, foundSeed, foundCreated, done] = found.map(String) as [
    string,
    string,
    string,
    string,
    string,
  ]
  return { body: foundBody, id: foundId, seed: foundSeed, created: Number(foundCreated), isDone: done === '1' }
}

export type JobState = 'waiting' | 'running' | 'done' | 'failed' | 'cancelled' | 'unknown'

const STATES: Record<string, JobState> = { q: 'waiting', r: 'running', d: 'done', f: 'failed', c: 'cancelled' }

export async function jobState(redis: Redis, model: string, id: string): Promise<JobState> {
  const state = (await redis.command('HGET', jobKey(model, id), 'st')) as Buffer | null
  return STATES[String(state)] ?? 'unknown'
}
