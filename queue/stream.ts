// The gateway's end of the token stream: one Streams per process hears the gateway's channel and gives each attached
// reader its events, every token of every choice exactly once and in order, then the end.
//
// The journal in Redis is the truth and a message only wakes: it carries the same elements with (epoch, base, from), is
// applied where it fits what was delivered, and its overlap is dropped. Whatever does not fit (a gap, an unknown or a
// forked epoch), a silence of half a second and a lost subscription are answered by fetching from the journal. Where the
// journal has less than was delivered, or says otherwise, Redis went back in time, and the reader repairs it (repair.ts).
import type { Clock } from './clock.ts'
import { reap } from './consume.ts'
import { Delivery, type RawElement, type Request } from './delivery.ts'
import { leave } from './enqueue.ts'
import type { Event, FailureCode, Usage } from './event.ts'
import { gatewayChannel, poolKey } from './keys.ts'
import type { Argument, Redis } from './redis.ts'
import { repair } from './repair.ts'

export type Attachment = {
  /** The job is in its queue, or was: from now on Redis should know it. */
  admitted(admission: { existed: boolean; generation: number }): void
  /** No more events until resume(); the journal keeps them. */
  pause(): void
  resume(): void
  /** Cancels nothing. */
  detach(): void
  /** Detaches; the job ends with its last reader, at once or, if it is to be kept, after its grace. */
  leave(keep: boolean): void
}

const POLL_MS = 500
/** How often a gateway says that it lives. */
const BEAT_MS = 1000
/** A request is attached before it is enqueued, and that takes less than the command timeout. */
const UNKNOWN_MS = 10_000
const FETCH_BATCH = 256
/** Elements of a choice in one answer: what a paused reader may find waiting is any amount. */
const FETCH_ELEMENTS = 256

type Ending = { usage: Usage } | { code: FailureCode; message: string }
/** One job's part of a message, as append.lua composes it; base: journal lengths when the epoch began. */
type Entry = [
  id: string,
  epoch: string,
  base: number[],
  parts: [choice: number, from: number, elements: RawElement[]][],
  ending: Ending | null,
  pin?: string,
]

/** Per choice the index of the first element, the journal's length and the elements; from 0 where a fork is possible. */
type FetchReply = [
  epoch: Buffer,
  ending: Buffer,
  pin: Buffer,
  ...heads: [from: number, length: number, ...elements: Buffer[]][],
]

export class Streams {
  readonly #redis: Redis
  readonly #gateway: string
  readonly #clock: Clock
  readonly #readers = new Map<string, Delivery[]>()
  /** Goodbyes that Redis has not heard yet. */
  readonly #leaving = new Map<string, { model: string; keep: boolean }>()
  readonly #stops: (() => void)[] = []

  static async open(redis: Redis, gateway: string, clock: Clock): Promise<Streams> {
    const streams = new Streams(redis, gateway, clock)
    streams.#stops.push(await redis.subscribe(gatewayChannel(gateway), (message) => streams.#receive(message)))
    streams.#stops.push(redis.onReconnect(() => streams.#fetch(streams.#all())))
    streams.#stops.push(clock.every(POLL_MS / 2, () => streams.#poll()))
    streams.#stops.push(clock.every(BEAT_MS, () => streams.#beat()))
    return streams
  }

  private constructor(redis: Redis, gateway: string, clock: Clock) {
    this.#redis = redis
    this.#gateway = gateway
    this.#clock = clock
  }

  /** Attach before enqueueing. After `done` or `failed` the listener hears no more. */
  attach(request: Request, listener: (event: Event) => void): Attachment {
    const reader = new Delivery(request, listener, this.#clock.monotonic())
    const others = this.#readers.get(request.id)
    if (others) others.push(reader)
    else this.#readers.set(request.id, [reader])
    return {
      admitted: ({ existed, generation }) => {
        reader.known = true
        reader.generation = generation
        if (existed) this.#fetch([reader])
      },
      pause: () => {
        reader.paused = true
      },
      resume: () => {
        if (!reader.paused) return
        reader.paused = false
        if (reader.attached) this.#fetch([reader])
      },
      detach: () => this.#detach(reader),
      leave: (keep) => {
        this.#detach(reader)
        if (this.#readers.has(request.id)) return
        this.#leaving.set(request.id, { model: request.model, keep })
        this.#sayGoodbye(request.id)
      },
    }
  }

  async close(): Promise<void> {
    for (const stop of this.#stops) stop()
    this.#readers.clear()
  }

  #all(): Delivery[] {
    return [...this.#readers.values()].flat()
  }

  #detach(reader: Delivery): void {
    reader.attached = false
    const { id } = reader.request
    const rest = this.#readers.get(id)?.filter((other) => other !== reader)
    if (rest?.length) this.#readers.set(id, rest)
    else this.#readers.delete(id)
  }

  /** Tried again with every beat until Redis has heard it. */
  #sayGoodbye(id: string): void {
    const { model, keep } = this.#leaving.get(id)!
    if (this.#readers.has(id)) this.#leaving.delete(id)
    else {
      leave(this.#redis, model, id, this.#gateway, keep)
        .then(() => this.#leaving.delete(id))
        .catch(() => {})
    }
  }

  /** Keeps this gateway's jobs from being taken for orphans, and what its slow readers have not fetched from expiring;
   * deadlines pass thereby even where no engine runs. */
  #beat(): void {
    for (const id of this.#leaving.keys()) this.#sayGoodbye(id)
    const paused = new Map<string, string[]>()
    for (const { request, paused: isPaused } of this.#all()) {
      const ids = paused.get(request.model) ?? []
      if (isPaused) ids.push(request.id)
      paused.set(request.model, ids)
    }
    for (const [model, ids] of paused) reap(this.#redis, model, this.#gateway, ids).catch(() => {})
  }

  #receive(message: Buffer): void {
    const behind: Delivery[] = []
    for (const entry of JSON.parse(message.toString()) as Entry[]) {
      for (const reader of this.#readers.get(entry[0]) ?? []) if (!this.#apply(reader, entry)) behind.push(reader)
    }
    if (behind.length > 0) this.#fetch(behind)
  }

  /** False when the entry does not fit and the journal must be asked. */
  #apply(reader: Delivery, [, epoch, , parts, ending, pin]: Entry): boolean {
    reader.known = true
    if (pin) reader.pin = pin
    if (reader.paused) return true
    if (epoch !== reader.epoch) {
      // Epochs are decimal strings of one length for centuries. An older one is a zombie's, or Redis went back in time;
      // a newer one may follow one that was never heard of and was a fork. Either way only the journal knows.
      if (newer(reader.epoch, epoch) || reader.choices.some((choice) => choice.length > 0)) return false
      reader.epoch = epoch
    }
    reader.heardAt = this.#clock.monotonic()
    let fits = true
    for (const [choice, from, elements] of parts) {
      if (from > reader.choices[choice]!.length) fits = false
      else reader.deliver(choice, from, elements)
      if (!reader.attached || reader.paused) return true
    }
    if (!fits) return false
    if (!ending) return true
    if ('usage' in ending && !reader.finished) return false
    this.#end(reader, ending)
    return true
  }

  #end(reader: Delivery, ending: Ending): void {
    if (!reader.attached) return
    this.#detach(reader)
    if ('usage' in ending) reader.listener({ type: 'done', usage: ending.usage })
    else reader.listener({ type: 'failed', code: ending.code, message: ending.message })
  }

  #poll(): void {
    const now = this.#clock.monotonic()
    const idle = this.#all().filter((reader) => !reader.paused && now - reader.heardAt >= POLL_MS)
    if (idle.length > 0) this.#fetch(idle)
  }

  /** Asks the journal for what follows the delivered tokens. Failures are silent: the next poll asks again. */
  #fetch(readers: Delivery[]): void {
    const byModel = new Map<string, Delivery[]>()
    for (const reader of readers) {
      reader.behind = reader.fetching
      if (reader.fetching) continue
      reader.fetching = true
      const wanted = byModel.get(reader.request.model)
      if (wanted) wanted.push(reader)
      else byModel.set(reader.request.model, [reader])
    }
    for (const [model, wanted] of byModel) {
      for (let i = 0; i < wanted.length; i += FETCH_BATCH) {
        this.#fetchBatch(model, wanted.slice(i, i + FETCH_BATCH)).catch(() => {})
      }
    }
  }

  async #fetchBatch(model: string, readers: Delivery[]): Promise<void> {
    const args: Argument[] = [FETCH_ELEMENTS]
    for (const { request, epoch, choices } of readers) {
      args.push(request.id, epoch, request.n, ...choices.map((choice) => choice.length))
    }
    let replies: (FetchReply | null)[]
    try {
      replies = (await this.#redis.script('fetch', [poolKey(model)], args)) as (FetchReply | null)[]
    } finally {
      for (const reader of readers) reader.fetching = false
    }
    for (const [i, reader] of readers.entries()) if (reader.attached) this.#answer(reader, replies[i] ?? null)
    const behind = readers.filter((reader) => reader.behind && reader.attached && !reader.paused)
    if (behind.length > 0) this.#fetch(behind)
  }

  #answer(reader: Delivery, reply: FetchReply | null): void {
    const now = this.#clock.monotonic()
    reader.heardAt = now
    if (reply === null) {
      if (reader.known) this.#repair(reader, '', true)
      else if (now - reader.attachedAt > UNKNOWN_MS) this.#fail(reader, 'the request never reached the queue')
      return
    }
    reader.known = true
    const epoch = reply[0].toString()
    if (reply[2].length > 0) reader.pin = reply[2].toString()
    const heads = reply.slice(3).map((head) => {
      const [from, length, ...texts] = head as [number, number, ...Buffer[]]
      return { from, length, elements: texts.map((text) => JSON.parse(text.toString()) as RawElement) }
    })
    if (epoch !== reader.epoch) {
      const isForked = heads.some(({ from, elements }, i) => reader.choices[i]!.contradicts(from, elements))
      const isShort = heads.some(({ length }, i) => length < reader.choices[i]!.length)
      if (isForked || isShort || newer(reader.epoch, epoch)) {
        this.#repair(reader, epoch, isForked)
        return
      }
      reader.epoch = epoch
    }
    for (const [i, { from, length, elements }] of heads.entries()) {
      if (from > reader.choices[i]!.length) continue // the reader was behind another answer
      reader.deliver(i, from, elements)
      if (!reader.attached || reader.paused) return
      if (reader.choices[i]!.length < length) reader.behind = true
    }
    if (reply[1].length === 0 || reader.behind) return
    const ending = JSON.parse(reply[1].toString()) as Ending
    if ('usage' in ending && !reader.finished) this.#fail(reader, 'the engine ended the request without every choice')
    else this.#end(reader, ending)
  }

  /** `isLost`: without a repair there is nothing to wait for. Failures are silent: the next poll sees the same and tries
   * again. */
  async #repair(reader: Delivery, seen: string, isLost: boolean): Promise<void> {
    if (reader.repairing) return
    reader.repairing = true
    const { request, generation, epoch, pin } = reader
    const { id, model, origin } = request
    const choices = reader.choices.map((choice) => choice.elements())
    const holding = { id, model, gateway: this.#gateway, generation, seen, epoch, pin, choices, origin }
    try {
      const repaired = await repair(this.#redis, holding)
      if (!reader.attached) return
      if (typeof repaired === 'object') reader.epoch = repaired.epoch
      else if (isLost && repaired !== 'changed') this.#fail(reader, 'Redis lost tokens of the request that were sent')
    } catch {
    } finally {
      reader.repairing = false
    }
  }

  #fail(reader: Delivery, message: string): void {
    this.#end(reader, { code: 'internal_error', message })
  }
}

const newer = (a: string, b: string): boolean => a.length > b.length || (a.length === b.length && a > b)
