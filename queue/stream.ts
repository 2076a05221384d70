// The gateway's end of the token stream: one Streams per process hears the gateway's channel and gives each attached
// request its events, every token of every choice exactly once and in order, then the end.
//
// The journal in Redis is the truth and a message only wakes: it carries the same elements with (epoch, base, from), is
// applied where it fits what was delivered, and its overlap is dropped. Whatever does not fit (a gap, an unknown or a
// forked epoch), a silence of half a second and a lost subscription are answered by fetching from the journal.
import type { Clock } from './clock.ts'
import { cancel } from './enqueue.ts'
import { decodeElement, type Event, type FailureCode, type Usage } from './event.ts'
import { gatewayChannel, poolKey } from './keys.ts'
import type { Argument, Redis } from './redis.ts'

export type Attachment = { detach(): void }
export type Request = { id: string; model: string; n: number }

const POLL_MS = 500
/** A request is attached before it is enqueued, and that takes less than the command timeout. */
const UNKNOWN_MS = 10_000
const FETCH_BATCH = 256

type RawElement = Parameters<typeof decodeElement>[0] & unknown[]
type Ending = { usage: Usage } | { code: FailureCode; message: string }
/** One job's part of a message, as append.lua composes it; base: journal lengths when the epoch began. */
type Entry = [
  id: string,
  epoch: string,
  base: number[],
  parts: [choice: number, from: number, elements: RawElement[]][],
  ending: Ending | null,
]

/** Per choice its index of the first element and the elements; from 0 where a fork is possible. */
type FetchReply = [epoch: Buffer, ending: Buffer, ...heads: [from: number, ...elements: Buffer[]][]]

type Choice = {
  /** Ids delivered so far, -1 for the finish: their count is the offset, and they tell a fork from a repetition. */
  ids: number[]
  finished: boolean
}

class Stream {
  readonly request: Request
  readonly listener: (event: Event) => void
  readonly choices: Choice[]
  epoch = ''
  /** True once Redis was seen to know the job. */
  known = false
  attachedAt: number
  heardAt: number
  /** A message came that did not fit: fetch as soon as the fetch under way is done. */
  behind = false
  fetching = false

  constructor(request: Request, listener: (event: Event) => void, now: number) {
    this.request = request
    this.listener = listener
    this.choices = Array.from({ length: request.n }, () => ({ ids: [], finished: false }))
    this.attachedAt = now
    this.heardAt = now
  }

  /** Delivers what is new of `elements`, the first of which has index `from` <= delivered. */
  deliver(index: number, from: number, elements: RawElement[]): void {
    const choice = this.choices[index]!
    const start = choice.ids.length
    const fresh = elements.slice(start - from).map(decodeElement)
    const tokens = fresh.flatMap((element) => ('token' in element ? [element.token] : []))
    for (const token of tokens) choice.ids.push(token.id)
    if (tokens.length > 0) this.listener({ type: 'tokens', choice: index, from: start, tokens })
    const last = fresh.at(-1)
    if (!last || !('finish' in last)) return
    choice.finished = true
    this.listener({ type: 'finish', choice: index, index: choice.ids.length, ...last.finish })
    choice.ids.push(-1)
  }

  get finished(): boolean {
    return this.choices.every((choice) => choice.finished)
  }
}

export class Streams {
  readonly #redis: Redis
  readonly #clock: Clock
  readonly #streams = new Map<string, Stream>()
  readonly #stops: (() => void)[] = []

  static async open(redis: Redis, gateway: string, clock: Clock): Promise<Streams> {
    const streams = new Streams(redis, clock)
    streams.#stops.push(await redis.subscribe(gatewayChannel(gateway), (message) => streams.#receive(message)))
    streams.#stops.push(redis.onReconnect(() => streams.#fetch([...streams.#streams.values()])))
    streams.#stops.push(clock.every(POLL_MS / 2, () => streams.#poll()))
    return streams
  }

  private constructor(redis: Redis, clock: Clock) {
    this.#redis = redis
    this.#clock = clock
  }

  /** Attach before enqueueing. After `done` or `failed` the listener hears no more; detaching cancels nothing. */
  attach(request: Request, listener: (event: Event) => void): Attachment {
    if (this.#streams.has(request.id)) throw new Error(`request ${request.id} is already attached`)
    const stream = new Stream(request, listener, this.#clock.monotonic())
    this.#streams.set(request.id, stream)
    return { detach: () => this.#detach(stream) }
  }

  async close(): Promise<void> {
    for (const stop of this.#stops) stop()
    this.#streams.clear()
  }

  #detach(stream: Stream): void {
    if (this.#streams.get(stream.request.id) === stream) this.#streams.delete(stream.request.id)
  }

  #attached(stream: Stream): boolean {
    return this.#streams.get(stream.request.id) === stream
  }

  #receive(message: Buffer): void {
    const behind: Stream[] = []
    for (const entry of JSON.parse(message.toString()) as Entry[]) {
      const stream = this.#streams.get(entry[0])
      if (stream && !this.#apply(stream, entry)) behind.push(stream)
    }
    if (behind.length > 0) this.#fetch(behind)
  }

  /** False when the entry does not fit and the journal must be asked. */
  #apply(stream: Stream, [, epoch, , parts, ending]: Entry): boolean {
    if (epoch !== stream.epoch) {
      // Epochs are decimal strings of one length for centuries. An older one is a zombie's, or Redis went back in time;
      // a newer one may follow one that was never heard of and was a fork. Either way only the journal knows.
      if (newer(stream.epoch, epoch) || stream.choices.some(({ ids }) => ids.length > 0)) return false
      stream.epoch = epoch
    }
    stream.known = true
    stream.heardAt = this.#clock.monotonic()
    let fits = true
    for (const [choice, from, elements] of parts) {
      if (from > stream.choices[choice]!.ids.length) fits = false
      else stream.deliver(choice, from, elements)
      if (!this.#attached(stream)) return true
    }
    if (!fits) return false
    if (!ending) return true
    if ('usage' in ending && !stream.finished) return false
    this.#end(stream, ending)
    return true
  }

  #end(stream: Stream, ending: Ending): void {
    if (!this.#attached(stream)) return
    this.#detach(stream)
    if ('usage' in ending) stream.listener({ type: 'done', usage: ending.usage })
    else stream.listener({ type: 'failed', code: ending.code, message: ending.message })
  }

  #poll(): void {
    const now = this.#clock.monotonic()
    const idle = [...this.#streams.values()].filter((stream) => now - stream.heardAt >= POLL_MS)
    if (idle.length > 0) this.#fetch(idle)
  }

  /** Asks the journal for what follows the delivered tokens. Failures are silent: the next poll asks again. */
  #fetch(streams: Stream[]): void {
    const byModel = new Map<string, Stream[]>()
    for (const stream of streams) {
      stream.behind = stream.fetching
      if (stream.fetching) continue
      stream.fetching = true
      const wanted = byModel.get(stream.request.model)
      if (wanted) wanted.push(stream)
      else byModel.set(stream.request.model, [stream])
    }
    for (const [model, wanted] of byModel) {
      for (let i = 0; i < wanted.length; i += FETCH_BATCH) {
        this.#fetchBatch(model, wanted.slice(i, i + FETCH_BATCH)).catch(() => {})
      }
    }
  }

  async #fetchBatch(model: string, streams: Stream[]): Promise<void> {
    const args: Argument[] = []
    for (const { request, epoch, choices } of streams) {
      args.push(request.id, epoch, request.n, ...choices.map((choice) => choice.ids.length))
    }
    let replies: (FetchReply | null)[]
    try {
      replies = (await this.#redis.script('fetch', [poolKey(model)], args)) as (FetchReply | null)[]
    } finally {
      for (const stream of streams) stream.fetching = false
    }
    for (const [i, stream] of streams.entries()) if (this.#attached(stream)) this.#answer(stream, replies[i] ?? null)
    const behind = streams.filter((stream) => stream.behind && this.#attached(stream))
    if (behind.length > 0) this.#fetch(behind)
  }

  #answer(stream: Stream, reply: FetchReply | null): void {
    const now = this.#clock.monotonic()
    stream.heardAt = now
    if (reply === null) {
      if (stream.known) this.#fail(stream, 'Redis lost the request')
      else if (now - stream.attachedAt > UNKNOWN_MS) this.#fail(stream, 'the request never reached the queue')
      return
    }
    stream.known = true
    const epoch = reply[0].toString()
    if (newer(stream.epoch, epoch)) return
    const heads = reply.slice(2).map((head) => {
      const [from, ...texts] = head as [number, ...Buffer[]]
      return { from, elements: texts.map((text) => JSON.parse(text.toString()) as RawElement) }
    })
    if (epoch !== stream.epoch) {
      if (heads.some(({ from, elements }, i) => forked(stream.choices[i]!.ids, from, elements))) {
        cancel(this.#redis, stream.request.model, stream.request.id).catch(() => {})
        this.#fail(stream, 'Redis lost tokens that were already sent, and the text went on differently')
        return
      }
      // A journal that lost its tail says nothing yet about the tokens beyond it.
      const reaches = heads.every(({ from, elements }, i) => from + elements.length >= stream.choices[i]!.ids.length)
      if (!reaches) return
      stream.epoch = epoch
    }
    for (const [i, { from, elements }] of heads.entries()) {
      stream.deliver(i, from, elements)
      if (!this.#attached(stream)) return
    }
    if (reply[1].length === 0) return
    const ending = JSON.parse(reply[1].toString()) as Ending
    if ('usage' in ending && !stream.finished) this.#fail(stream, 'the engine ended the request without every choice')
    else this.#end(stream, ending)
  }

  #fail(stream: Stream, message: string): void {
    this.#end(stream, { code: 'internal_error', message })
  }
}

const newer = (a: string, b: string): boolean => a.length > b.length || (a.length === b.length && a > b)

/** Whether the journal says otherwise than what was delivered. */
function forked(ids: number[], from: number, elements: RawElement[]): boolean {
  return elements.some(([id], i) => from + i < ids.length && ids[from + i] !== id)
}
