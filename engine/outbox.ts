// One claimed job on its way through the engine: what it produced and how much of that the journal has acknowledged. The
// daemon sends from here; tokens that come while an append is under way leave with the next one, and after a gap the
// same tokens are sent again, because nothing is dropped before the job has ended.
import type { FailureCode, Finish, Token, Usage } from '../queue/event.ts'
import type { Job } from '../queue/job.ts'
import type { RequestOutput } from './output/processor.ts'

/** What is new, in the shape of the queue's append. */
export type Parcel = {
  id: string
  epoch: string
  choices: { choice: number; from: number; tokens: Token[]; finish?: Finish }[]
  usage?: Usage
  failed?: { code: FailureCode; message: string }
}

/** Elements of a choice that count as sent: its tokens, and one more for the finish. */
type Sent = number[]

export class Outbox {
  readonly job: Job
  readonly epoch: string
  readonly output: RequestOutput
  /** The job cannot be run; sent instead of tokens. */
  failed: { code: FailureCode; message: string } | null = null
  /** clock.monotonic() */
  readonly claimedAt: number
  firstTokenAt: number | null = null
  lastTokenAt: number
  #acknowledged: Sent
  #inFlight: { sent: Sent; isOver: boolean } | null = null

  /** The journal's elements are acknowledged from the start. */
  constructor(job: Job, epoch: string, output: RequestOutput, now: number) {
    this.job = job
    this.epoch = epoch
    this.output = output
    this.claimedAt = now
    this.lastTokenAt = now
    this.#acknowledged = produced(output)
  }

  gotTokens(now: number) {
    this.firstTokenAt ??= now
    this.lastTokenAt = now
  }

  get isOver(): boolean {
    return this.failed !== null || this.output.isFinished
  }

  /** Tokens that the journal has not acknowledged, of the choice that has most of them. */
  get unacknowledged(): number {
    return Math.max(...this.output.choices.map(({ tokens }, i) => tokens.length - (this.#acknowledged[i] as number)))
  }

  /** All that is new, as one append; null if there is nothing. The verdict must follow before the next call. */
  take(): Parcel | null {
    const { id } = this.job
    const from = this.#acknowledged
    const sent = produced(this.output)
    const inFlight = { sent, isOver: this.isOver }
    if (this.failed) {
      this.#inFlight = inFlight
      return { id, epoch: this.epoch, choices: [], failed: this.failed }
    }
    const choices = this.output.choices.flatMap(({ tokens, finish }, choice) => {
      const begin = from[choice] as number
      if (sent[choice] === begin) return []
      return [{ choice, from: begin, tokens: tokens.slice(begin), ...(finish && { finish }) }]
    })
    if (choices.length === 0 && !this.isOver) return null
    this.#inFlight = inFlight
    return { id, epoch: this.epoch, choices, ...(this.isOver && { usage: this.output.usage }) }
  }

  /** The journal has what was taken (ok), or less than that (gap). Returns whether the job's end was in it. */
  settle(verdict: 'ok' | { gapFrom: number[] }): boolean {
    const taken = this.#inFlight
    this.#inFlight = null
    if (verdict !== 'ok') this.#acknowledged = this.output.choices.map((_, i) => verdict.gapFrom[i] ?? 0)
    else if (taken) this.#acknowledged = taken.sent
    return verdict === 'ok' && (taken?.isOver ?? false)
  }
}

function produced(output: RequestOutput): Sent {
  return output.choices.map(({ tokens, finish }) => tokens.length + (finish ? 1 : 0))
}
