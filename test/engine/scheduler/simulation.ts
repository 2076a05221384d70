// Drives a scheduler with a model that is not there: every slice computes, every logit row gives the next token of a
// fixed rule. Checks after every step what must always hold.
import assert from 'node:assert/strict'
import type { SchedulerOptions } from '../../../engine/scheduler/limits.ts'
import { PlainScheduler } from '../../../engine/scheduler/plain.ts'
import { Scheduler, type Scheduling, type Slice } from '../../../engine/scheduler/scheduler.ts'
import type { Sequence, SequenceRequest } from '../../../engine/scheduler/sequence.ts'
import { Memory } from './memory.ts'

export const defaults: SchedulerOptions = {
  blockSize: 4,
  numBlocks: 64,
  maxModelLen: 128,
  maxNumSeqs: 8,
  maxNumBatchedTokens: 32,
  longPrefillTokenThreshold: 0,
  enableChunkedPrefill: true,
  enablePrefixCaching: true,
  eosTokenIds: [],
}

/** What a model would say: a function of the tokens so far, as with greedy sampling. */
export const nextToken = (sequence: Sequence) => {
  const last = sequence.tokens.at(sequence.length - 1)
  return (last * 31 + sequence.length * 7 + sequence.choice) % 1000
}

export class Simulation {
  readonly scheduler: Scheduling
  readonly options: SchedulerOptions
  /** Of each step: who got how many tokens. */
  readonly steps: { name: string; begin: number; count: number }[][] = []
  /** Outputs by `id/choice`. */
  readonly outputs = new Map<string, number[]>()
  readonly finished: string[] = []
  readonly #memory: Memory

  constructor(options: Partial<SchedulerOptions> = {}) {
    this.options = { ...defaults, ...options }
    this.#memory = new Memory(this.options.numBlocks, this.options.blockSize)
    this.scheduler = options.policy === 'plain' ? new PlainScheduler(this.options) : new Scheduler(this.options)
  }

  add(request: SequenceRequest): void {
    for (const { sequence } of this.scheduler.add(request)) this.finished.push(nameOf(sequence))
  }

  step(): Slice[] {
    const slices = this.scheduler.schedule()
    this.#check(slices)
    this.steps.push(slices.map(({ sequence, begin, count }) => ({ name: nameOf(sequence), begin, count })))
    this.#memory.step(slices, this.scheduler.blocks.copies)
    for (const slice of slices) this.scheduler.advance(slice)
    for (const { sequence, yieldsToken, forks } of slices) {
      if (yieldsToken) for (const each of [sequence, ...forks]) this.#sample(each)
    }
    this.scheduler.checkIntegrity()
    return slices
  }

  #sample(sequence: Sequence): void {
    const token = nextToken(sequence)
    const name = nameOf(sequence)
    const output = this.outputs.get(name) ?? []
    output.push(token)
    this.outputs.set(name, output)
    sequence.tokens.push(token)
    if (!this.scheduler.ending(sequence)) return
    this.scheduler.finish(sequence)
    this.finished.push(name)
  }

  /** Tokens computed so far. */
  get computed(): number {
    return this.steps.flat().reduce((sum, { count }) => sum + count, 0)
  }

  run(limit = 10_000): void {
    for (let i = 0; this.scheduler.hasWork; i++) {
      assert.ok(i < limit, `still at work after ${limit} steps`)
      assert.ok(this.step().length > 0, 'a step with work to do did nothing')
    }
    assert.equal(this.scheduler.blocks.free, this.options.numBlocks)
  }

  #check(slices: Slice[]): void {
    const { maxNumBatchedTokens, maxNumSeqs, blockSize } = this.options
    const tokens = slices.reduce((sum, { count }) => sum + count, 0)
    assert.ok(tokens <= maxNumBatchedTokens, `${tokens} tokens in a step`)
    assert.ok(this.scheduler.running.length <= maxNumSeqs)
    assert.equal(new Set(slices.map(({ sequence }) => sequence)).size, slices.length, 'a sequence is in the step twice')
    for (const { sequence, begin, count, yieldsToken } of slices) {
      assert.equal(sequence.state, 'running')
      assert.equal(begin, sequence.computed)
      assert.ok(count > 0 && begin + count <= sequence.length)
      assert.equal(yieldsToken, begin + count === sequence.length)
      const isPaged = this.options.policy !== 'plain'
      if (isPaged) assert.equal(sequence.blocks.length, Math.ceil(sequence.length / blockSize), 'ceil(tokens / block)')
    }
  }
}

export const nameOf = (sequence: Sequence) => `${sequence.request.id}/${sequence.choice}`
