// The engine: requests of token ids in, sampled token ids out, one step at a time. It knows no queue, no text and no
// clock; the worker thread, the offline LLM and the tests drive it by the same verbs (add, abort, step, stats).
//
// What it samples for a choice is a function of prompt, sampling and the choice's own tokens alone: not of who else is
// in the batch, how prompts are cut in chunks, what is cached, or where it was preempted or resumed.
import type { FailureCode } from '../queue/event.ts'
import { BatchPacker } from './batch.ts'
import { BeamSearch } from './beam.ts'
import { RequestRefused } from './errors.ts'
import type { Model } from './models/index.ts'
import type { Device } from './native/device.ts'
import { Commands, type KvLayer } from './native/ops.ts'
import { type Logprob, Sampler } from './sample/sampler.ts'
import type { SchedulerOptions } from './scheduler/limits.ts'
import { PlainScheduler } from './scheduler/plain.ts'
import { type LogitRow, logitRows } from './scheduler/rows.ts'
import { Scheduler, type Scheduling, type Slice } from './scheduler/scheduler.ts'
import type { Ending, Sequence, SequenceRequest } from './scheduler/sequence.ts'

export type { SequenceRequest } from './scheduler/sequence.ts'
export type EngineOptions = SchedulerOptions

/**
 * One sampled token, or the end of a choice without one (resumed ids that were already complete), or log-probabilities of
 * the prompt, before the first token, or a refusal. A step may give a choice several tokens, in order.
 */
export type StepOutput =
  | {
      type: 'token'
      id: string
      choice: number
      token: number
      /** Position in the choice's output, counted from its very first token. */
      index: number
      /** The sampled token first, then the most likely ones in order; absent unless asked for. */
      logprobs?: Logprob[]
      finish?: 'stop' | 'length'
      /** The stop token of the request that ended it; absent for end of sequence. */
      stopTokenId?: number
      /** With a choice's first token of this engine: prompt tokens found in the prefix cache. */
      cachedTokens?: number
    }
  | { type: 'finish'; id: string; choice: number; index: number; finish: 'stop' | 'length'; stopTokenId?: number }
  /** Of prompt tokens from, from + 1, ...: the token first, then the most likely ones in its place. */
  | { type: 'prompt'; id: string; from: number; logprobs: Logprob[][] }
  | { type: 'failed'; id: string; code: FailureCode; message: string }

/** Gauges of this moment and counters since the start; tokens unless named otherwise. */
export type EngineStats = {
  steps: number
  /** Sequences. */
  running: number
  waiting: number
  /** Tokens of the waiting sequences, still to be computed. */
  waitingTokens: number
  totalBlocks: number
  /** Blocks no sequence holds; some of them still carry a cached prefix. */
  freeBlocks: number
  /** Blocks that can be found by the prefix they hold. */
  cachedBlocks: number
  /** 0 to 1. */
  kvUsage: number
  prefixQueries: number
  prefixHits: number
  preemptions: number
  /** Of the last step: tokens computed and sequences in it. */
  stepTokens: number
  stepSequences: number
  /** Tokens computed as part of a prompt, or again after preemption or resume. */
  promptTokens: number
  generationTokens: number
  /** Decodes that carried guesses, the tokens guessed, and those that were right, by their place in the guess. */
  drafts: number
  draftTokens: number
  acceptedTokens: number[]
}

export class Engine {
  readonly #model: Model
  readonly #scheduler: Scheduling
  readonly #packer: BatchPacker
  readonly #sampler: Sampler
  readonly #commands: Commands
  readonly #kv: KvLayer[]
  readonly #options: EngineOptions
  readonly #searches = new Map<string, BeamSearch>()
  /** Outputs that need no computing: the next step delivers them. */
  #early: StepOutput[] = []
  readonly #counts = { steps: 0, stepTokens: 0, stepSequences: 0, promptTokens: 0, generationTokens: 0 }
  readonly #speculated = { drafts: 0, draftTokens: 0, acceptedTokens: [] as number[] }

  constructor(model: Model, device: Device, options: EngineOptions) {
    this.#model = model
    this.#options = options
    this.#scheduler = options.policy === 'plain' ? new PlainScheduler(options) : new Scheduler(options)
    this.#packer = new BatchPacker(device, options)
    this.#sampler = new Sampler(device, { vocabularySize: model.config.vocabularySize, ...options })
    this.#commands = new Commands(device)
    this.#kv = model.allocateKv(options.numBlocks, options.blockSize)
    const places = options.speculation?.numSpeculativeTokens ?? 0
    this.#speculated.acceptedTokens = new Array<number>(places).fill(0)
  }

  /** A request that cannot be run is answered by a `failed` output of the next step. */
  add(request: SequenceRequest): void {
    try {
      this.#checkIds('prompt', request.prompt)
      for (const ids of request.resume) this.#checkIds('resume', ids)
      const search = request.sampling.useBeamSearch ? new BeamSearch(request, this.#options) : null
      const { sampling } = search?.request ?? request
      this.#sampler.check(sampling)
      const over = this.#scheduler.add(search?.request ?? request)
      if (search) this.#searches.set(request.id, search)
      for (const { sequence, ending } of over) {
        const { reason: finish, ...rest } = ending
        const { choice, generated: index } = sequence
        this.#early.push({ type: 'finish', id: request.id, choice, index, finish, ...rest })
      }
    } catch (error) {
      if (!(error instanceof RequestRefused)) throw error
      this.#early.push({ type: 'failed', id: request.id, code: error.code, message: error.message })
    }
  }

  /** A request, or one of its choices; its blocks are free for the next step. What is not here is ignored. */
  abort(id: string, choice?: number): void {
    // The beams of a search are not its choices, which come at its end.
    if (!this.#searches.has(id)) this.#scheduler.abort(id, choice)
    else if (choice === undefined && this.#searches.delete(id)) this.#scheduler.abort(id)
    const isDropped = (early: StepOutput) =>
      early.id === id && (choice === undefined || ('choice' in early && early.choice === choice))
    this.#early = this.#early.filter((early) => !isDropped(early))
  }

  get hasWork(): boolean {
    return this.#early.length > 0 || this.#scheduler.hasWork
  }

  /** A KernelError is fatal: the process must exit, and its jobs are reclaimed by another engine. */
  step(): StepOutput[] {
    const outputs = this.#early.splice(0)
    const slices = this.#scheduler.schedule()
    if (slices.length === 0) return outputs
    const { sampled, scored } = logitRows(slices)

    this.#commands.reset()
    const batch = this.#packer.pack(slices, [...sampled, ...scored], this.#scheduler.blocks.copies)
    this.#sampler.pack(sampled, scored)
    if (batch.copyCount > 0) {
      for (const layer of this.#kv) this.#commands.kvCopyBlocks(layer, batch.copies, batch.copyCount)
    }
    this.#model.forward(this.#commands, batch, this.#kv, (logits, first) =>
      this.#sampler.append(this.#commands, logits, first),
    )
    this.#commands.run()

    const { tokens, logprobs } = this.#sampler.read()
    this.#count(slices)
    for (const [i, row] of scored.entries()) addPromptOutput(outputs, row, logprobs[sampled.length + i]!)
    // Forks go on from what is computed, so before the token that is sampled for their parent.
    for (const slice of slices) if (slice.draft.length === 0) this.#scheduler.advance(slice)
    let row = 0
    for (const slice of slices) {
      if (!slice.yieldsToken) continue
      if (slice.draft.length > 0) {
        row += this.#verify(slice, tokens.subarray(row), logprobs.slice(row), outputs)
        continue
      }
      for (const sequence of [slice.sequence, ...slice.forks]) {
        const at = row++
        const search = this.#searches.get(sequence.request.id)
        if (search) outputs.push(...this.#offer(search, sequence, logprobs[at]!))
        else if (this.#take(sequence, tokens[at]!, logprobs[at], outputs)) this.#scheduler.finish(sequence)
      }
    }
    return outputs
  }

  stats(): EngineStats {
    const { blocks, running, waiting, waitingTokens, counts } = this.#scheduler
    return {
      ...this.#counts,
      ...counts,
      ...this.#speculated,
      acceptedTokens: [...this.#speculated.acceptedTokens],
      running: running.length,
      waiting,
      waitingTokens,
      totalBlocks: blocks.total,
      freeBlocks: blocks.free,
      cachedBlocks: blocks.named,
      kvUsage: 1 - blocks.free / blocks.total,
    }
  }

  /** Throws if the block books do not add up. Costs a pass over all blocks: for tests and for idle engines. */
  checkIntegrity(): void {
    this.#scheduler.checkIntegrity()
  }

  free(): void {
    for (const { k, v } of this.#kv) {
      k.free()
      v.free()
    }
    this.#packer.free()
    this.#sampler.free()
  }

  /**
   * Of the tokens sampled behind the last known one and behind each guess, the first counts, and each other one if the
   * guess before it is what was sampled (verification by coupling: every position draws by its own Philox counter, so the
   * tokens are those of steps without guesses). Returns the rows it looked at.
   */
  #verify(slice: Slice, tokens: Int32Array, logprobs: (Logprob[] | undefined)[], outputs: StepOutput[]): number {
    const { sequence, draft } = slice
    let ending: Ending | null = null
    let taken = 0
    do {
      ending = this.#take(sequence, tokens[taken]!, logprobs[taken], outputs)
      taken++
    } while (!ending && taken <= draft.length && draft[taken - 1] === tokens[taken - 1])
    for (let i = 0; i < taken - 1; i++) this.#speculated.acceptedTokens[i]!++
    // Behind the last one taken, K and V are of wrong guesses: they are overwritten when the right token comes.
    this.#scheduler.advance(slice, taken)
    if (ending) this.#scheduler.finish(sequence)
    return 1 + draft.length
  }

  #take(sequence: Sequence, token: number, logprobs: Logprob[] | undefined, outputs: StepOutput[]): Ending | null {
    const { request, choice, generated: index } = sequence
    sequence.tokens.push(token)
    const ending = this.#scheduler.ending(sequence)
    const isFirst = index === (request.resume[choice]?.length ?? 0)
    this.#counts.generationTokens++
    const output: StepOutput = { type: 'token', id: request.id, choice, token, index }
    if (logprobs) output.logprobs = logprobs
    if (ending) output.finish = ending.reason
    if (ending?.stopTokenId !== undefined) output.stopTokenId = ending.stopTokenId
    if (isFirst) output.cachedTokens = Math.min(sequence.cachedTokens, request.prompt.length)
    outputs.push(output)
    return ending
  }

  /** The answers of a beam search come all at once, each as a choice, when the last beam has said the last candidates. */
  #offer(search: BeamSearch, sequence: Sequence, [, ...candidates]: Logprob[]): StepOutput[] {
    const answers = search.offer(this.#scheduler, sequence, candidates)
    if (!answers) return []
    const { id, prompt, sampling, resume } = search.asked
    this.#searches.delete(id)
    return answers.flatMap(({ tokens, ending: { reason: finish, ...rest } }, choice): StepOutput[] => {
      const from = resume[choice]?.length ?? 0
      if (from >= tokens.length) return [{ type: 'finish', id, choice, index: tokens.length, finish, ...rest }]
      const cachedTokens = choice === 0 ? Math.min(sequence.cachedTokens, prompt.length) : 0
      return tokens.slice(from).map(({ token, records }, i) => ({
        type: 'token',
        id,
        choice,
        token,
        index: from + i,
        ...(sampling.logprobs !== null && { logprobs: records }),
        ...(from + i === tokens.length - 1 && { finish, ...rest }),
        ...(i === 0 && { cachedTokens }),
      }))
    })
  }

  #count(slices: Slice[]): void {
    const counts = this.#counts
    counts.steps++
    counts.stepSequences = slices.length
    counts.stepTokens = slices.reduce((sum, slice) => sum + slice.count, 0)
    for (const { sequence, begin, count, draft } of slices) {
      const isDecode = count - draft.length === 1 && begin >= sequence.request.prompt.length
      if (!isDecode) counts.promptTokens += count
      this.#speculated.draftTokens += draft.length
      if (draft.length > 0) this.#speculated.drafts++
    }
  }

  #checkIds(field: string, ids: Uint32Array): void {
    const size = this.#model.config.vocabularySize
    const bad = ids.find((id) => id >= size)
    if (bad !== undefined)
      throw new RequestRefused('request_failed', `${field}: token ${bad}; the vocabulary has ${size}`)
  }
}

function addPromptOutput(outputs: StepOutput[], { sequence, scored }: LogitRow, records: Logprob[]): void {
  const { id } = sequence.request
  const last = outputs.at(-1)
  if (last?.type === 'prompt' && last.id === id) last.logprobs.push(records)
  else outputs.push({ type: 'prompt', id, from: scored!, logprobs: [records] })
}
