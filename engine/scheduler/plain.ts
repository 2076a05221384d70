// The scheduler without the art, kept beside the fast one (scheduler.ts) so that it can be checked against it and
// measured: every sequence gets blocks for the longest it may become before it starts and keeps them to itself, nobody
// is preempted, every choice computes its own prompt, and all queues are sorted arrays. Called by engine.ts when
// `policy` is 'plain'. It must give every request the same tokens; what it lacks is only speed and room.
import { RequestRefused } from '../errors.ts'
import { checkOptions, refuseMisfit, type SchedulerOptions } from './limits.ts'
import type { Scheduling, Slice } from './scheduler.ts'
import { type Ending, precedence, Sequence, type SequenceRequest } from './sequence.ts'

export class PlainScheduler implements Scheduling {
  readonly counts = { preemptions: 0, prefixQueries: 0, prefixHits: 0 }
  readonly #options: SchedulerOptions
  #sequences: Sequence[] = []
  readonly #free: number[]
  #arrivals = 0

  constructor(options: SchedulerOptions) {
    checkOptions(options)
    this.#options = options
    this.#free = Array.from({ length: options.numBlocks }, (_, block) => block)
  }

  get blocks() {
    return { total: this.#options.numBlocks, free: this.#free.length, named: 0, copies: [] }
  }

  get running(): readonly Sequence[] {
    return this.#in('running')
  }

  get waiting(): number {
    return this.#in('waiting').length
  }

  get waitingTokens(): number {
    return this.#in('waiting').reduce((sum, { length }) => sum + length, 0)
  }

  get hasWork(): boolean {
    return this.#sequences.length > 0
  }

  add(request: SequenceRequest): { sequence: Sequence; ending: Ending }[] {
    refuseMisfit(request, this.#options)
    if (request.sampling.useBeamSearch) {
      throw new RequestRefused('request_failed', 'use_beam_search: the plain scheduler cannot fork; use the other')
    }
    const over: { sequence: Sequence; ending: Ending }[] = []
    const arrival = this.#arrivals++
    for (let choice = 0; choice < request.sampling.n; choice++) {
      const sequence = new Sequence(request, choice, arrival)
      const ending = this.ending(sequence)
      if (ending) over.push({ sequence, ending })
      else this.#sequences.push(sequence)
    }
    this.#sequences.sort(precedence)
    return over
  }

  abort(id: string, choice?: number): void {
    const isDropped = (each: Sequence) => each.request.id === id && (choice === undefined || each.choice === choice)
    for (const sequence of this.#sequences.filter(isDropped)) this.finish(sequence)
  }

  schedule(): Slice[] {
    const waiting = this.#in('waiting')
    while (waiting.length > 0 && this.running.length < this.#options.maxNumSeqs) {
      const next = waiting.shift()!
      const blocks = this.#free.splice(0, this.#longest(next))
      if (blocks.length < this.#longest(next)) {
        this.#free.unshift(...blocks)
        break
      }
      next.blocks.append(Int32Array.from(blocks))
      next.state = 'running'
    }
    const slices: Slice[] = []
    let budget = this.#options.maxNumBatchedTokens
    // Those that decode first: a long prompt would leave them nothing.
    for (const sequence of this.running.toSorted((a, b) => Number(a.uncomputed > 1) - Number(b.uncomputed > 1))) {
      const count = Math.min(sequence.uncomputed, budget)
      if (count === 0 || (count < sequence.uncomputed && !this.#options.enableChunkedPrefill)) continue
      const yieldsToken = count === sequence.uncomputed
      slices.push({ sequence, begin: sequence.computed, count, yieldsToken, forks: [], draft: [] })
      budget -= count
    }
    return slices
  }

  advance({ sequence, count }: Slice): void {
    sequence.compute(count)
  }

  fork(): never {
    throw new Error('the plain scheduler cannot fork')
  }

  extend(sequence: Sequence, token: number): void {
    sequence.tokens.push(token)
  }

  ending(sequence: Sequence): Ending | null {
    return sequence.ending(this.#options.eosTokenIds, this.#options.maxModelLen)
  }

  finish(sequence: Sequence): void {
    this.#sequences = this.#sequences.filter((other) => other !== sequence)
    this.#free.push(...sequence.blocks.view)
    sequence.blocks.clear()
    sequence.state = 'finished'
  }

  checkIntegrity(): void {
    const held = this.#sequences.flatMap(({ blocks }) => [...blocks.view])
    const all = new Set([...held, ...this.#free])
    if (all.size !== this.#options.numBlocks || held.length + this.#free.length !== all.size) {
      throw new Error(`${held.length} blocks held and ${this.#free.length} free; there are ${this.#options.numBlocks}`)
    }
  }

  #in(state: Sequence['state']): Sequence[] {
    return this.#sequences.filter((sequence) => sequence.state === state)
  }

  /** Blocks for as long as it may become. */
  #longest({ request }: Sequence): number {
    const { maxModelLen, blockSize } = this.#options
    const tokens = Math.min(request.prompt.length + request.sampling.maxTokens, maxModelLen) - 1
    return Math.ceil(tokens / blockSize)
  }
}
