// Pools: the model cards that gateways validate against, the texts cards refer to, and what a scale-to-zero controller
// or a metrics page reads of a pool. Cards outlive engines, so a pool with no engine still validates and queues.
import { createHash } from 'node:crypto'
import { Card } from './card.ts'
import { blobKey, cardsKey, deadKey, poolKey } from './keys.ts'
import type { Redis } from './redis.ts'

export type Blobs = { tokenizer: string; chatTemplate: string | null }

export const contentHash = (text: string): string => createHash('sha256').update(text).digest('hex')

/** Texts first: a card must never name a text that is not there. */
export async function registerCard(redis: Redis, card: Card, blobs: Blobs): Promise<void> {
  Card.parse(card)
  await putBlob(redis, 'tokenizer', card.tokenizer, blobs.tokenizer)
  if (card.chatTemplate !== null) await putBlob(redis, 'chatTemplate', card.chatTemplate, blobs.chatTemplate)
  await redis.command('HSET', cardsKey, card.name, JSON.stringify(card))
}

async function putBlob(redis: Redis, field: string, hash: string, text: string | null): Promise<void> {
  if (text === null) throw new TypeError(`the card names a ${field} but its text is missing`)
  const actual = contentHash(text)
  if (actual !== hash) throw new TypeError(`card.${field} must be the SHA-256 of its text: ${actual}, not ${hash}`)
  const key = blobKey(hash)
  if ((await redis.command('EXISTS', key)) === 0) await redis.command('SET', key, text)
}

export async function listCards(redis: Redis): Promise<Card[]> {
  const cards = (await redis.command('HVALS', cardsKey)) as Buffer[]
  return cards.map((text) => Card.parse(JSON.parse(text.toString()))).sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** Jobs already queued for the model stay; without a card no gateway admits new ones. */
export async function removeCard(redis: Redis, name: string): Promise<boolean> {
  return (await redis.command('HDEL', cardsKey, name)) === 1
}

export async function readBlob(redis: Redis, hash: string): Promise<string | null> {
  return ((await redis.command('GET', blobKey(hash))) as Buffer | null)?.toString() ?? null
}

export type PoolState = {
  queued: number
  /** KV tokens the waiting jobs may come to hold (jobCost). */
  queuedTokens: number
  running: number
  /** Engines with a live lease. */
  engines: number
  /** Unix ms (Redis TIME) of the last admission, 0 for never. */
  lastUse: number
  /** The least number of engines with which the pool's work goes on: 0 when nothing waits or runs. */
  desired: number
  /** How long the longest-waiting job has been waiting. */
  oldestAgeMs: number
}

export async function poolState(redis: Redis, model: string): Promise<PoolState> {
  const reply = (await redis.script('pool', [poolKey(model)], [])) as number[]
  const [queued, queuedTokens, running, engines, lastUse, oldestAgeMs] = reply as [
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  return { queued, queuedTokens, running, engines, lastUse, oldestAgeMs, desired: queued + running > 0 ? 1 : 0 }
}

/** A job that was given up because engines kept dying with it, the last ones while it ran alone. */
export type DeadLetter = {
  id: string
  tenant: string
  revision: string
  /** SHA-1 of prompt ids and parameters: tells repetitions of a request apart from other requests, and nothing else. */
  digest: string
  deaths: number
  /** Tokens it had produced. */
  tokens: number
  /** Unix ms (Redis TIME). */
  at: number
}

/** Oldest first; the latest thousand of the pool. */
export async function deadLetters(redis: Redis, model: string): Promise<DeadLetter[]> {
  const letters = (await redis.command('ZRANGE', deadKey(model), 0, -1)) as Buffer[]
  return letters.map((letter) => {
    const fields = JSON.parse(letter.toString()) as DeadLetter
    return { ...fields, tenant: decodeURIComponent(fields.tenant), revision: decodeURIComponent(fields.revision) }
  })
}
