// The models this gateway serves: their cards, tokenizers and templates, read from Redis only and cached. Cards are
// read again every second while requests come, and at once when a name is unknown (but not for each of a flood of
// unknown names), so a new model is served as soon as its engine has registered it. With Redis away the last known cards stay valid.
import type { Card } from '../../queue/card.ts'
import type { Clock } from '../../queue/clock.ts'
import { listCards, readBlob } from '../../queue/models.ts'
import type { Redis } from '../../queue/redis.ts'
import { ApiError, queueUnavailable } from '../errors.ts'
import { parseTemplate, type Template } from './template.ts'
import { PromptEncoder } from './tokenizer.ts'

const MAX_AGE_MS = 1000
const MIN_AGE_MS = 50

export class Cards {
  readonly #redis: Redis
  readonly #clock: Clock
  readonly #nonce: string
  #cards: Card[] = []
  #byName = new Map<string, Card>()
  #readAt = Number.NEGATIVE_INFINITY
  #reading: Promise<void> | null = null
  /** By content hash. */
  readonly #encoders = new Map<string, Promise<PromptEncoder>>()
  readonly #templates = new Map<string, Promise<Template>>()

  /** `nonce`: digits no client can guess (special-text.ts). */
  constructor(redis: Redis, clock: Clock, nonce: string) {
    this.#redis = redis
    this.#clock = clock
    this.#nonce = nonce
  }

  async list(): Promise<Card[]> {
    await this.#freshen()
    return this.#cards
  }

  /** By name or alias. Throws 404 model_not_found, which names what is served. */
  async find(name: string): Promise<Card> {
    if (!this.#byName.has(name)) {
      if (this.#age() > MIN_AGE_MS) await this.#read()
    } else if (this.#age() > MAX_AGE_MS) this.#read().catch(() => {}) // what is known stays valid; the next request tries again
    const card = this.#byName.get(name)
    if (card) return card
    const served = this.#cards.map((card) => card.name).join(', ')
    const hint = served === '' ? 'No model is served yet.' : `Served: ${served}.`
    const wanted = name.length > 100 ? `${name.slice(0, 100)}…` : name
    throw new ApiError(404, 'model_not_found', 'model', `The model ${JSON.stringify(wanted)} does not exist. ${hint}`)
  }

  encoder(card: Card): Promise<PromptEncoder> {
    return remember(this.#encoders, card.tokenizer, async () => {
      const json = () => this.#blob(card.tokenizer)
      return new PromptEncoder(await json(), this.#nonce, json)
    })
  }

  /** null when the model has no chat template. */
  async template(card: Card): Promise<Template | null> {
    const hash = card.chatTemplate
    if (hash === null) return null
    return remember(this.#templates, hash, async () => parseTemplate(await this.#blob(hash)))
  }

  async #blob(hash: string): Promise<string> {
    const text = await readBlob(this.#redis, hash).catch((error) => {
      throw queueUnavailable(error)
    })
    if (text === null) throw queueUnavailable(new Error(`blob ${hash} of a model card is not in Redis`))
    return text
  }

  #age(): number {
    return this.#clock.monotonic() - this.#readAt
  }

  async #freshen(): Promise<void> {
    if (this.#age() <= MAX_AGE_MS) return
    await this.#read().catch((error) => {
      if (this.#cards.length === 0) throw error
    })
  }

  /** Requests that ask at the same time share one read. */
  #read(): Promise<void> {
    this.#reading ??= this.#readCards().finally(() => {
      this.#reading = null
    })
    return this.#reading
  }

  async #readCards(): Promise<void> {
    const cards = await listCards(this.#redis).catch((error) => {
      throw queueUnavailable(error)
    })
    this.#cards = cards.sort((a, b) => (a.name < b.name ? -1 : 1))
    this.#byName = new Map()
    for (const card of cards) for (const alias of card.aliases) this.#byName.set(alias, card)
    for (const card of cards) this.#byName.set(card.name, card) // a name wins over another card's alias
    this.#readAt = this.#clock.monotonic()
    forget(this.#encoders, new Set(cards.map((card) => card.tokenizer)))
    forget(this.#templates, new Set(cards.map((card) => card.chatTemplate)))
  }
}

/** A failed load is not remembered. */
function remember<T>(cache: Map<string, Promise<T>>, hash: string, load: () => Promise<T>): Promise<T> {
  const known = cache.get(hash)
  if (known) return known
  const loading = load()
  cache.set(hash, loading)
  loading.catch(() => cache.delete(hash))
  return loading
}

function forget<T>(cache: Map<string, T>, wanted: Set<string | null>): void {
  for (const hash of cache.keys()) if (!wanted.has(hash)) cache.delete(hash)
}
