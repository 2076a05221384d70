// Every key and channel in Redis: its type, who writes it, who reads it, how long it lives. All keys of a pool (one
// model) carry the hash tag {q:<model>}, so that one script may touch them all on one node of a cluster. Scripts get
// poolKey as KEYS[1] and derive the rest by the same suffixes (lua/include/keys.lua; a test compares the two).
//
// short words: r request, t tokens, s stream, q queue. A lane is `<class>:<pin>:t:<tenant>` (new work of a tenant) or
// `<class>:<pin>:r` (resumed work); a pin is the revision, followed by `/<numerics>` once tokens were produced, and by
// `|alone` when the job must run alone because two engines died with it.

import { createHash } from 'node:crypto'

/** Names come from users: nothing but letters, digits and -_.!~*'()% reaches a key, so braces cannot move a hash tag. */
export const escapeName = (name: string): string => encodeURIComponent(name.toWellFormed())

/** HASH: seq (arrival counter), tokens (cost of waiting jobs), running, use (ms of the last admission), ward:<pin> (engine
 * that empties itself for suspects). For ever. */
export const poolKey = (model: string): string => `{q:${escapeName(model)}}`

/** HASH of one job. Written by every verb; PEXPIREs when the job has ended (its `ttl` field, 60 s by default). */
export const jobKey = (model: string, id: string): string => `${poolKey(model)}:r:${id}`

/** LIST, the journal: one element (event.ts) per token. LLEN is the offset. Written by append, read by fetch and
 * claim; expires with its job. */
export const journalKey = (model: string, id: string, choice: number): string => `${poolKey(model)}:t:${id}:${choice}`

/** STREAM with the group `engines`: entries of waiting jobs, and, pending in the group, of running ones. Made on
 * demand, deleted when its last entry is. */
export const laneKey = (model: string, lane: string): string => `${poolKey(model)}:s:${lane}`

/** ZSET of the lanes with waiting entries that an engine of this pin may serve, by class and arrival. */
export const lanesKey = (model: string, pin: string): string => `${poolKey(model)}:lanes:${pin}`

/** ZSET job -> ms of admission, of the waiting jobs: the length of the queue and the age of its oldest. */
export const waitingKey = (model: string): string => `${poolKey(model)}:waiting`

/** ZSET job -> ms after which a job that never started fails with capacity_timeout. */
export const deadlinesKey = (model: string): string => `${poolKey(model)}:deadlines`

/** ZSET engine -> ms (Redis TIME) at which its lease ends. Written by beat, read by reap and claim. */
export const enginesKey = (model: string): string => `${poolKey(model)}:engines`

/** ZSET gateway -> ms (Redis TIME) at which it last said that it lives. Written by whoever admits, attaches or reaps for a
 * gateway; read to find jobs that nobody reads; forgotten after an hour. */
export const gatewaysKey = (model: string): string => `${poolKey(model)}:gateways`

/** ZSET, newest last: the latest jobs that were given up after too many deaths, as JSON, by ms. */
export const deadKey = (model: string): string => `${poolKey(model)}:dead`

/** HASH of one engine: revision, numerics, steps. Written by beat with a TTL of ten leases, for people and metrics. */
export const engineKey = (model: string, engine: string): string => `${poolKey(model)}:e:${engine}`

/** ZSET job -> ms of the claim: what the engine holds according to Redis. Deleted by reap. */
export const heldKey = (model: string, engine: string): string => `${poolKey(model)}:held:${engine}`

/** Channel: an empty message whenever there may be something to claim. */
export const bellChannel = (model: string): string => `${poolKey(model)}:bell`

/** HASH of an Idempotency-Key: body (hash), id, seed, created, done (1). Written and read by gateways (answered.ts); expires
 * after a day. A slot of its own: the key is the tenant's, whatever model the body names. */
export const idempotencyKey = (tenant: string, key: string): string =>
  `pagestream:idempotency:{${createHash('sha256').update(`${tenant}\0${key}`).digest('base64url')}}`

/** Channel: tokens for the streams a gateway holds, one message per engine step. */
export const gatewayChannel = (gateway: string): string => `pagestream:gateway:${gateway}`

/** Channel: what an engine must hear at once, `{"cancel":"<job>"}`. */
export const engineChannel = (engine: string): string => `pagestream:engine:${engine}`

/** HASH name -> card (card.ts) as JSON. Written by engines and `models add`, read by gateways. For ever. */
export const cardsKey = 'pagestream:cards'

/** STRING: a tokenizer.json or a chat template by its SHA-256, shared by all cards that name it. For ever. */
export const blobKey = (hash: string): string => `pagestream:blob:${hash}`
