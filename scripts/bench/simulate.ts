// The scheduler under a virtual clock: requests arrive at given times, a step takes as long as a machine of given costs
// would need for it, and every token sampled is the same. Says what each request waited for and how full the batch and
// the KV cache were; no model and no real time, so that a run is the same everywhere. Called by paging.ts and tests.
import type { SchedulerOptions } from '../../engine/scheduler/limits.ts'
import { PlainScheduler } from '../../engine/scheduler/plain.ts'
import { Scheduler, type Scheduling } from '../../engine/scheduler/scheduler.ts'
import type { Sequence, SequenceRequest } from '../../engine/scheduler/sequence.ts'

export type Arrival = { atMs: number; request: SequenceRequest }
/** Milliseconds of a step: fixed, and per token computed. */
export type Costs = { stepMs: number; tokenMs: number }

export type Served = { id: string; atMs: number; firstTokenMs: number; finishedMs: number; cachedTokens: number }
export type StepRecord = {
  atMs: number
  tokens: number
  running: number
  waiting: number
  /** Slots of the blocks that are held, and those of them whose K and V are computed. */
  heldSlots: number
  usedSlots: number
}

export class VirtualRun {
  readonly scheduler: Scheduling
  readonly steps: StepRecord[] = []
  readonly served = new Map<string, Served>()
  nowMs = 0
  readonly #options: SchedulerOptions
  readonly #costs: Costs
  readonly #arrivals: Arrival[]

  constructor(options: SchedulerOptions, costs: Costs, arrivals: Arrival[]) {
    this.#options = options
    this.#costs = costs
    this.#arrivals = arrivals.toSorted((a, b) => a.atMs - b.atMs)
    this.scheduler = options.policy === 'plain' ? new PlainScheduler(options) : new Scheduler(options)
  }

  /** Until nothing is left, or for so many steps. */
  run(steps = Number.POSITIVE_INFINITY): this {
    for (let i = 0; i < steps && this.step(); i++);
    return this
  }

  /** False when there is nothing left to do. */
  step(): boolean {
    const next = this.#arrivals[0]
    if (!this.scheduler.hasWork && next) this.nowMs = Math.max(this.nowMs, next.atMs)
    while (this.#arrivals[0] && this.#arrivals[0].atMs <= this.nowMs) this.#arrive(this.#arrivals.shift()!)
    if (!this.scheduler.hasWork) return false
    const slices = this.scheduler.schedule()
    const tokens = slices.reduce((sum, { count }) => sum + count, 0)
    this.nowMs += this.#costs.stepMs + this.#costs.tokenMs * tokens
    for (const slice of slices) this.scheduler.advance(slice)
    const { running, waiting } = this.scheduler
    this.steps.push({ atMs: this.nowMs, tokens, running: running.length, waiting, ...this.#slots() })
    for (const { sequence, yieldsToken, forks } of slices) {
      if (yieldsToken) for (const each of [sequence, ...forks]) this.#sample(each)
    }
    return true
  }

  get computedTokens(): number {
    return this.steps.reduce((sum, { tokens }) => sum + tokens, 0)
  }

  #arrive({ atMs, request }: Arrival): void {
    this.scheduler.add(request)
    const never = Number.POSITIVE_INFINITY
    this.served.set(request.id, { id: request.id, atMs, firstTokenMs: never, finishedMs: never, cachedTokens: 0 })
  }

  #sample(sequence: Sequence): void {
    const served = this.served.get(sequence.request.id)!
    served.firstTokenMs = Math.min(served.firstTokenMs, this.nowMs)
    served.cachedTokens = Math.max(served.cachedTokens, sequence.cachedTokens)
    this.scheduler.extend(sequence, 0)
    if (!this.scheduler.ending(sequence)) return
    this.scheduler.finish(sequence)
    served.finishedMs = this.nowMs
  }

  /** A shared block counts once, with the tokens of the one who has most in it. */
  #slots(): { heldSlots: number; usedSlots: number } {
    const { blockSize } = this.#options
    const used = new Map<number, number>()
    for (const { blocks, computed } of this.scheduler.running) {
      for (const [index, block] of blocks.view.entries()) {
        const own = Math.min(blockSize, Math.max(0, computed - index * blockSize))
        used.set(block, Math.max(used.get(block) ?? 0, own))
      }
    }
    const usedSlots = used.values().reduce((sum, each) => sum + each, 0)
    return { heldSlots: used.size * blockSize, usedSlots }
  }
}
