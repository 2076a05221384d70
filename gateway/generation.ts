// The jobs of one HTTP request, from admission to the last token: one job per prompt, each with n choices, numbered
// prompt * n + choice towards the client. They are attached before they are enqueued, so that no token is missed. The
// failure of one ends all. Whoever no longer wants the answer calls cut(), and the engines are told. Somebody else's jobs
// are followed in the same way.
import { enqueue, type Terms } from '../queue/enqueue.ts'
import type { Event, Finish, Token, Usage } from '../queue/event.ts'
import type { Job } from '../queue/job.ts'
import type { Attachment } from '../queue/stream.ts'
import { within } from './breaker.ts'
import type { Gateway } from './context.ts'
import { type ApiError, badRequest, jobFailure, queueUnavailable, unavailable } from './errors.ts'

/** After `done` or `failed` nothing more is called. */
export type Listener = {
  tokens(choice: number, tokens: Token[]): void
  finish(choice: number, finish: Finish): void
  done(usage: Usage): void
  failed(error: ApiError): void
}

/** A job this request reads: its own, or one that is there. */
export type Part = {
  id: string
  model: string
  n: number
  origin?: { job: Job; terms: Terms }
  /** For a job that is there: which of its readers this is. */
  generation?: number
}

export type Options = {
  terms?: Terms
  /** Without this reader the jobs go on for their grace instead of ending at once. */
  keep?: boolean
}

export class Generation {
  readonly #gateway: Gateway
  readonly #parts: Part[]
  readonly #listener: Listener
  readonly #attachments: Attachment[]
  /** Jobs whose end has not been heard. */
  readonly #running: Set<number>
  readonly #keep: boolean
  readonly #usage: Usage = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 }
  readonly #startedAt: number
  /** Per choice, when its last tokens came; NaN before the first. */
  readonly #heardAt: number[]
  /** When any token came, or the start. */
  #progressAt: number
  #stopTimer: () => void
  #over = false

  /** Resolves when every job is in its queue, if it was not already; throws 503 queue_full when one is not admitted. */
  static start(gateway: Gateway, jobs: Job[], listener: Listener, options: Options = {}): Promise<Generation> {
    const { terms = {}, keep = false } = options
    const parts = jobs.map((job) => ({ id: job.id, model: job.model, n: job.sampling.n, origin: { job, terms } }))
    return Generation.follow(gateway, parts, listener, keep)
  }

  /** From the first token on, whoever began them. */
  static async follow(gateway: Gateway, parts: Part[], listener: Listener, keep: boolean): Promise<Generation> {
    if (gateway.draining) throw unavailable('shutting_down', 'This gateway is shutting down.', 1000)
    const generation = new Generation(gateway, parts, listener, keep)
    try {
      for (const i of parts.keys()) if (!generation.#over) await generation.#enter(i)
    } catch (error) {
      generation.cut()
      throw error
    }
    return generation
  }

  private constructor(gateway: Gateway, parts: Part[], listener: Listener, keep: boolean) {
    this.#gateway = gateway
    this.#parts = parts
    this.#listener = listener
    this.#running = new Set(parts.keys())
    this.#keep = keep
    this.#startedAt = gateway.clock.monotonic()
    const choices = parts.reduce((sum, { n }) => sum + n, 0)
    this.#heardAt = new Array<number>(choices).fill(Number.NaN)
    this.#progressAt = this.#startedAt
    this.#stopTimer = gateway.clock.after(gateway.config.requestTimeoutMs, () => this.#timeOut())
    this.#attachments = parts.map((part, i) => gateway.streams.attach(part, (event) => this.#hear(i, event)))
    gateway.open.add(this)
  }

  /** Ends the request without a word to the listener, and the work of its engines within a step unless others read it. */
  cut(): void {
    if (this.#over) return
    for (const i of this.#running) this.#attachments[i]!.leave(this.#keep)
    this.#close()
  }

  /** The client reads too slowly: no more events until resume(). */
  pause(): void {
    for (const attachment of this.#attachments) attachment.pause()
  }

  resume(): void {
    for (const attachment of this.#attachments) attachment.resume()
  }

  fail(error: ApiError): void {
    if (this.#over) return
    this.cut()
    this.#listener.failed(error)
  }

  async #enter(index: number): Promise<void> {
    const { redis, config, metrics, clock } = this.#gateway
    const { origin, generation = 1 } = this.#parts[index]!
    const attachment = this.#attachments[index]!
    if (!origin) return attachment.admitted({ existed: true, generation })
    const { job, terms } = origin
    const admission = await within(clock, enqueue(redis, job, config, terms)).catch((error) => {
      if (error instanceof RangeError) throw badRequest(null, 'The prompt is too large for the request queue.')
      throw queueUnavailable(error)
    })
    if (admission.admitted) return attachment.admitted(admission)
    metrics.rejected.inc({ model_name: job.model })
    const message = `The queue of ${job.model} is full. Try again after the time in the retry-after header.`
    throw unavailable(admission.code, message, admission.retryAfterMs)
  }

  #hear(index: number, event: Event): void {
    if (this.#over) return
    const part = this.#parts[index]!
    const first = index * part.n
    switch (event.type) {
      case 'tokens':
        this.#measure(first + event.choice, event.tokens.length)
        this.#listener.tokens(first + event.choice, event.tokens)
        break
      case 'finish':
        this.#listener.finish(first + event.choice, event)
        break
      case 'done':
        this.#partDone(index, event.usage)
        break
      case 'failed':
        this.#running.delete(index)
        this.fail(jobFailure(event.code, event.message))
    }
  }

  #partDone(index: number, usage: Usage): void {
    this.#running.delete(index)
    this.#usage.promptTokens += usage.promptTokens
    this.#usage.completionTokens += usage.completionTokens
    this.#usage.cachedTokens += usage.cachedTokens
    if (this.#running.size > 0) return
    this.#close()
    const { metrics, clock } = this.#gateway
    const labels = { model_name: this.#parts[index]!.model }
    metrics.wholeRequest.observe(labels, (clock.monotonic() - this.#startedAt) / 1000)
    this.#listener.done(this.#usage)
  }

  #measure(choice: number, tokens: number): void {
    const { metrics, clock } = this.#gateway
    const now = clock.monotonic()
    const before = this.#heardAt[choice]!
    const labels = { model_name: this.#parts[0]!.model }
    if (Number.isNaN(before)) {
      metrics.firstToken.observe(labels, (now - this.#startedAt) / 1000)
    } else {
      const each = (now - before) / 1000 / tokens
      for (let i = 0; i < tokens; i++) metrics.betweenTokens.observe(labels, each)
    }
    this.#heardAt[choice] = now
    this.#progressAt = now
  }

  /** Looks only when the time is up: a timer per token would cost more than the token. */
  #timeOut(): void {
    const { clock, config } = this.#gateway
    const left = config.requestTimeoutMs - (clock.monotonic() - this.#progressAt)
    if (left > 0) {
      this.#stopTimer = clock.after(left, () => this.#timeOut())
      return
    }
    const time = `${Math.round(config.requestTimeoutMs / 1000)} s`
    const begun = this.#progressAt > this.#startedAt
    if (begun) this.fail(unavailable('engine_unavailable', `No token came for ${time}. Try again later.`, 5000))
    else
      this.fail(unavailable('capacity_timeout', `No engine began the request within ${time}. Try again later.`, 5000))
  }

  #close(): void {
    this.#over = true
    this.#stopTimer()
    this.#gateway.open.delete(this)
    for (const attachment of this.#attachments) attachment.detach()
  }
}
