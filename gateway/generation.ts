// The jobs of one HTTP request, from admission to the last token: one job per prompt, each with n choices, numbered
// prompt * n + choice towards the client. They are attached before they are enqueued, so that no token is missed. The
// failure of one ends all. Whoever no longer wants the answer calls cut(), and the engines are told.
import { cancel, enqueue } from '../queue/enqueue.ts'
import type { Event, Finish, Token, Usage } from '../queue/event.ts'
import type { Job } from '../queue/job.ts'
import type { Attachment } from '../queue/stream.ts'
import type { Gateway } from './context.ts'
import { type ApiError, badRequest, jobFailure, queueUnavailable, unavailable } from './errors.ts'

/** After `done` or `failed` nothing more is called. */
export type Listener = {
  tokens(choice: number, tokens: Token[]): void
  finish(choice: number, finish: Finish): void
  done(usage: Usage): void
  failed(error: ApiError): void
}

export class Generation {
  readonly #gateway: Gateway
  readonly #jobs: Job[]
  readonly #listener: Listener
  readonly #attachments: Attachment[]
  /** Jobs whose end has not been heard. */
  readonly #running: Set<Job>
  readonly #usage: Usage = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 }
  readonly #startedAt: number
  /** Per choice, when its last tokens came; NaN before the first. */
  readonly #heardAt: number[]
  /** When any token came, or the start. */
  #progressAt: number
  #stopTimer: () => void
  #over = false

  /** Resolves when every job is in its queue; throws 503 queue_full when one is not admitted. */
  static async start(gateway: Gateway, jobs: Job[], listener: Listener): Promise<Generation> {
    if (gateway.draining) throw unavailable('shutting_down', 'This gateway is shutting down.', 1000)
    const generation = new Generation(gateway, jobs, listener)
    try {
      for (const job of jobs) if (!generation.#over) await generation.#enqueue(job)
    } catch (error) {
      generation.cut()
      throw error
    }
    return generation
  }

  private constructor(gateway: Gateway, jobs: Job[], listener: Listener) {
    this.#gateway = gateway
    this.#jobs = jobs
    this.#listener = listener
    this.#running = new Set(jobs)
    this.#startedAt = gateway.clock.monotonic()
    const choices = jobs.reduce((sum, job) => sum + job.sampling.n, 0)
    this.#heardAt = new Array<number>(choices).fill(Number.NaN)
    this.#progressAt = this.#startedAt
    this.#stopTimer = gateway.clock.after(gateway.config.requestTimeoutMs, () => this.#timeOut())
    this.#attachments = jobs.map((job, i) =>
      gateway.streams.attach({ id: job.id, model: job.model, n: job.sampling.n }, (event) => this.#hear(i, event)),
    )
    gateway.open.add(this)
  }

  /** Ends the request without a word to the listener, and the work of its engines within a step. */
  cut(): void {
    if (this.#over) return
    this.#close()
    const { redis, log } = this.#gateway
    for (const { model, id } of this.#running) {
      cancel(redis, model, id).catch((err) => log.error({ err, id }, 'cancel failed; the job runs to its end'))
    }
  }

  fail(error: ApiError): void {
    if (this.#over) return
    this.cut()
    this.#listener.failed(error)
  }

  async #enqueue(job: Job): Promise<void> {
    const { redis, config, metrics } = this.#gateway
    const admission = await enqueue(redis, job, config).catch((error) => {
      if (error instanceof RangeError) throw badRequest(null, 'The prompt is too large for the request queue.')
      throw queueUnavailable(error)
    })
    if (admission.admitted) return
    metrics.rejected.inc({ model_name: job.model })
    const message = `The queue of ${job.model} is full. Try again after the time in the retry-after header.`
    throw unavailable(admission.code, message, admission.retryAfterMs)
  }

  #hear(index: number, event: Event): void {
    if (this.#over) return
    const first = index * this.#jobs[index]!.sampling.n
    switch (event.type) {
      case 'tokens':
        this.#measure(first + event.choice, event.tokens.length)
        this.#listener.tokens(first + event.choice, event.tokens)
        break
      case 'finish':
        this.#listener.finish(first + event.choice, event)
        break
      case 'done':
        this.#jobDone(this.#jobs[index]!, event.usage)
        break
      case 'failed':
        this.#running.delete(this.#jobs[index]!)
        this.fail(jobFailure(event.code, event.message))
    }
  }

  #jobDone(job: Job, usage: Usage): void {
    this.#running.delete(job)
    this.#usage.promptTokens += usage.promptTokens
    this.#usage.completionTokens += usage.completionTokens
    this.#usage.cachedTokens += usage.cachedTokens
    if (this.#running.size > 0) return
    this.#close()
    const { metrics, clock } = this.#gateway
    const labels = { model_name: job.model }
    metrics.wholeRequest.observe(labels, (clock.monotonic() - this.#startedAt) / 1000)
    this.#listener.done(this.#usage)
  }

  #measure(choice: number, tokens: number): void {
    const { metrics, clock } = this.#gateway
    const now = clock.monotonic()
    const before = this.#heardAt[choice]!
    const labels = { model_name: this.#jobs[0]!.model }
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
