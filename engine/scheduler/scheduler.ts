// Who computes how many tokens in the next step: continuous batching (Orca) under a token budget, with prompts cut in
// chunks that fill what the decodes leave (arXiv 2308.16369). Pure: no tensors, no clock. engine.ts calls schedule(),
// computes the slices, and tells what came of them by advance() and finish(). plain.ts is the twin without the art.
//
// A sequence is admitted with blocks for all its known tokens, so that only decoding ever needs another one. When there
// is none, the last of the running (lowest class, then latest arrival) gives its blocks up and waits again, to be
// recomputed; much of it is often still cached. Running is kept in order of precedence, hence the first of them can take
// from all others, and what fits alone in the pool always ends: add() refuses the rest. Waiting is first come, first
// served within a class, and nobody passes a sequence that does not fit yet, so none starves. A higher class does not
// wait for a lower one: for its place or blocks the lower is preempted.
//
// The choices of a request are forks: the first computes the prompt, and the others, held until then, sample their
// first token from the same logits.
import { rootHash } from '../../queue/prefix.ts'
import { RequestRefused } from '../errors.ts'
import { Blocks } from './blocks.ts'
import { checkOptions, refuseMisfit, type SchedulerOptions, spareBlocks } from './limits.ts'
import { NgramDrafter } from './ngram.ts'
import { type Ending, precedence, Sequence, type SequenceRequest } from './sequence.ts'
import { WaitingQueue } from './waiting.ts'

/** Tokens [begin, begin + count) of a sequence, to be computed in one step. The last known one yields logits, from which
 * the sequence and its `forks` each sample a token. So does every token of `draft`: guesses that follow it and belong to
 * the count. */
export type Slice = {
  sequence: Sequence
  begin: number
  count: number
  yieldsToken: boolean
  forks: Sequence[]
  draft: readonly number[]
}

/** The choices of one request. `held` are forked from `lead` when it has computed the prompt. */
type Group = { live: Map<number, Sequence>; lead: Sequence | undefined; held: Sequence[] }

/** What the engine needs of a scheduler: this one, or plain.ts. */
export type Scheduling = Omit<Scheduler, 'blocks'> & {
  readonly blocks: Pick<Blocks, 'total' | 'free' | 'named' | 'copies'>
}

export class Scheduler {
  readonly blocks: Blocks
  /** Counters since the start; the prefix figures in tokens. */
  readonly counts = { preemptions: 0, prefixQueries: 0, prefixHits: 0 }
  readonly #options: SchedulerOptions
  readonly #waiting = new WaitingQueue()
  /** In order of precedence. */
  #running: Sequence[] = []
  readonly #groups = new Map<string, Group>()
  #held = 0
  #arrivals = 0
  /** Of static batching: sequences may join those that run. */
  #isOpen = true
  /** Blocks that stay free when another sequence is admitted, so that its neighbours can go on for a while. */
  readonly #reserve: number
  readonly #drafter: NgramDrafter | null

  constructor(options: SchedulerOptions) {
    checkOptions(options)
    this.#options = options
    this.blocks = new Blocks(options.numBlocks, options.blockSize)
    this.#reserve = spareBlocks(options)
    this.#drafter = options.speculation ? new NgramDrafter(options.speculation) : null
  }

  get running(): readonly Sequence[] {
    return this.#running
  }

  /** Blocks to leave free in an admission; none when nobody else runs. */
  get #spare(): number {
    return this.#running.length === 0 ? 0 : this.#reserve
  }

  get waiting(): number {
    return this.#waiting.size + this.#held
  }

  /** Tokens of the waiting sequences, not counting choices that wait for the prompt of another. */
  get waitingTokens(): number {
    return this.#waiting.tokens
  }

  get hasWork(): boolean {
    return this.#groups.size > 0
  }

  /** Throws RequestRefused if it can never run. Returns the choices that their resumed ids have already ended. */
  add(request: SequenceRequest): { sequence: Sequence; ending: Ending }[] {
    if (this.#groups.has(request.id)) throw new Error(`request ${request.id} is already in the engine`)
    refuseMisfit(request, this.#options)
    const arrival = this.#arrivals++
    // Without the prefix cache a root of its own lets the choices of one request share, and nobody else.
    const salt = this.#options.enablePrefixCaching ? request.salt : `${request.salt}\nrequest ${arrival}`
    const root = rootHash(salt, request.adapter)
    const count = request.sampling.useBeamSearch ? 1 : request.sampling.n
    const all = Array.from({ length: count }, (_, i) => new Sequence(request, i, arrival, root))
    const over: { sequence: Sequence; ending: Ending }[] = []
    const live = new Map<number, Sequence>()
    for (const sequence of all) {
      const ending = this.ending(sequence)
      if (ending) over.push({ sequence, ending })
      else live.set(sequence.choice, sequence)
    }
    if (live.size === 0) return over
    const { maxNumWaiting = Number.POSITIVE_INFINITY } = this.#options
    if (this.waiting + live.size > maxNumWaiting) {
      throw new RequestRefused(
        'engine_unavailable',
        `n: ${live.size} more sequences beside the ${this.waiting} that wait; at most ${maxNumWaiting} may, try again later`,
      )
    }
    const [lead, ...held] = [...live.values()].filter(({ generated }) => generated === 0)
    this.#groups.set(request.id, { live, lead, held })
    this.#held += held.length
    for (const sequence of live.values()) if (!held.includes(sequence)) this.#waiting.push(sequence)
    return over
  }

  /** Drops a request, or one of its choices. Unknown ones are ignored: they may have finished meanwhile. */
  abort(id: string, choice?: number): void {
    const live = this.#groups.get(id)?.live
    const dropped = choice === undefined ? [...(live?.values() ?? [])].reverse() : [live?.get(choice)]
    for (const sequence of dropped) if (sequence) this.finish(sequence)
  }

  /** Decodes first, then prompts under way and new sequences by precedence, while there are budget, places and blocks. */
  schedule(): Slice[] {
    const { maxNumBatchedTokens, enableChunkedPrefill, longPrefillTokenThreshold, blockSize } = this.#options
    const slices: Slice[] = []
    let budget = maxNumBatchedTokens
    const give = (sequence: Sequence, count: number) => {
      const yieldsToken = count === sequence.uncomputed
      const forks = yieldsToken ? this.#fork(sequence) : []
      slices.push({ sequence, begin: sequence.computed, count, yieldsToken, forks, draft: [] })
      this.blocks.fill(sequence, count)
      budget -= count
    }

    this.blocks.beginStep()
    this.#open()
    this.#makeWay()
    // A victim is always the last one, which has not been given anything yet.
    for (let i = 0; i < this.#running.length; i++) {
      const sequence = this.#running[i]!
      if (sequence.uncomputed === 1 && this.#makeRoom(sequence)) give(sequence, 1)
    }
    budget -= this.#speculate(slices, budget)

    const chunk =
      enableChunkedPrefill && longPrefillTokenThreshold > 0 ? longPrefillTokenThreshold : maxNumBatchedTokens
    // At least a block, so that no two fill halves of the same one in a step.
    const limit = Math.max(chunk, blockSize)
    let isFirst = true
    const giveChunk = (sequence: Sequence) => {
      if (!this.#skip(sequence) || (sequence.uncomputed === 1 && !this.blocks.grow(sequence))) return
      let count = Math.min(sequence.uncomputed, limit, budget)
      if (count < sequence.uncomputed) {
        // Cut between blocks: half a block is of no use to those who share it.
        const over = (sequence.computed + count) % blockSize
        if (over < count) count -= over
        else if (!isFirst && this.blocks.isShared(sequence)) return
      }
      isFirst = false
      give(sequence, count)
    }
    const admit = (before?: Sequence) => {
      while (budget > 0) {
        const next = this.#waiting.peek()
        if (!next || (before && precedence(next, before) > 0) || !this.#admit(next, budget)) return
        giveChunk(next)
      }
    }
    for (const sequence of this.#running.filter(({ uncomputed }) => uncomputed > 1)) {
      admit(sequence)
      if (budget > 0) giveChunk(sequence)
    }
    admit()
    return slices
  }

  /** For beam search: another choice, which says what `parent` says and is computed as far. Without a place it waits. */
  fork(parent: Sequence, choice: number): Sequence {
    const child = parent.fork(choice)
    this.#groups.get(parent.request.id)!.live.set(choice, child)
    if (parent.state === 'running' && this.#running.length < this.#options.maxNumSeqs) {
      this.blocks.fork(parent, child)
      this.#run(child)
    } else {
      this.#waiting.push(child)
    }
    return child
  }

  /** The sequence goes on with this token. */
  extend(sequence: Sequence, token: number): void {
    sequence.tokens.push(token)
    if (sequence.state === 'waiting') this.#waiting.tokens++
  }

  /** A slice was computed: K and V of its first `count` tokens are in the cache, those behind were wrong guesses. */
  advance({ sequence, count: all, forks, draft }: Slice, count = all): void {
    sequence.compute(count)
    if (draft.length > 0) this.blocks.trim(sequence)
    this.blocks.publish(sequence)
    for (const fork of forks) this.blocks.fork(sequence, fork)
  }

  ending(sequence: Sequence): Ending | null {
    return sequence.ending(this.#options.eosTokenIds, this.#options.maxModelLen)
  }

  /** Ends a sequence whatever its state; its blocks and its place are free for the next step. */
  finish(sequence: Sequence): void {
    const { id } = sequence.request
    const group = this.#groups.get(id)!
    group.live.delete(sequence.choice)
    if (group.live.size === 0) this.#groups.delete(id)
    const heldAt = group.held.indexOf(sequence)
    if (heldAt !== -1) {
      group.held.splice(heldAt, 1)
      this.#held--
    } else {
      if (sequence.state === 'running') this.#leave(sequence)
      else this.#waiting.remove(sequence)
      // Those that waited for this one's prompt now wait for the next one's.
      if (sequence === group.lead) group.lead = this.#unhold(group)
    }
    sequence.state = 'finished'
    this.#isOpen = false
  }

  checkIntegrity(): void {
    this.blocks.checkIntegrity(this.#running)
    for (let i = 1; i < this.#running.length; i++) {
      if (precedence(this.#running[i - 1]!, this.#running[i]!) >= 0) throw new Error('the running are out of order')
    }
  }

  #admit(sequence: Sequence, budget: number): boolean {
    if (this.#running.length === this.#options.maxNumSeqs || !this.#isOpen) return false
    const matched = this.blocks.match(sequence)
    const uncomputed = sequence.length - Math.min(matched.length * this.blocks.size, sequence.length - 1)
    if (!this.#options.enableChunkedPrefill && uncomputed > budget) return false
    if (!this.blocks.admit(sequence, matched, this.#spare)) return false
    this.#waiting.remove(sequence)
    this.#run(sequence)
    if (sequence.preemptions === 0) this.counts.prefixQueries += sequence.length
    return true
  }

  /** What is in the cache need not be computed; false if the rest has to wait for the next step. */
  #skip(sequence: Sequence): boolean {
    const before = sequence.computed
    const isReady = this.blocks.skip(sequence)
    if (sequence.preemptions === 0) {
      this.counts.prefixHits += sequence.computed - before
      sequence.cachedTokens += sequence.computed - before
    }
    return isReady
  }

  /** The other choices of a lead whose prompt is computed in this step. Those that have no place, or no block for their
   * first token, wait like any other. */
  #fork(lead: Sequence): Sequence[] {
    const group = this.#groups.get(lead.request.id)!
    if (lead !== group.lead) return []
    const room = Math.min(this.#options.maxNumSeqs - this.#running.length, this.blocks.free - 1 - this.#spare)
    const forks = group.held.splice(0, Math.max(0, room))
    this.#held -= forks.length
    for (const fork of forks) {
      fork.computed = lead.length
      this.#run(fork)
    }
    while (group.held.length > 0) this.#unhold(group)
    group.lead = undefined
    return forks
  }

  #run(sequence: Sequence): void {
    sequence.state = 'running'
    let at = this.#running.length
    while (at > 0 && precedence(sequence, this.#running[at - 1]!) < 0) at--
    this.#running.splice(at, 0, sequence)
  }

  /** Preempts running sequences of a lower class than the next to be admitted, if it then fits. */
  #makeWay(): void {
    const next = this.#waiting.peek()
    if (!next || !this.#isOpen) return
    const isLower = (sequence: Sequence | undefined) =>
      sequence !== undefined && sequence.request.class > next.request.class
    if (!isLower(this.#running.at(-1))) return
    // At most: lower ones may share blocks, and not only with each other.
    const theirs = this.#running.reduce((sum, each) => sum + (isLower(each) ? each.blocks.length : 0), 0)
    const fits = (freed: number) => this.blocks.fits(next, this.blocks.match(next), this.#spare - freed)
    if (!fits(theirs)) return
    while (isLower(this.#running.at(-1)) && (this.#running.length === this.#options.maxNumSeqs || !fits(0))) {
      this.#preempt(this.#running.at(-1)!)
    }
  }

  /** Adds guesses to decodes, as far as budget and free blocks go; returns their number. Nobody is preempted for them. */
  #speculate(decodes: Slice[], budget: number): number {
    if (!this.#drafter) return 0
    let given = 0
    for (const slice of decodes) {
      const { sequence } = slice
      // Behind the guesses one more token is sampled.
      const { sampling } = sequence.request
      if (sampling.useBeamSearch) continue
      const left = Math.min(sampling.maxTokens - sequence.generated, this.#options.maxModelLen - sequence.length) - 1
      const draft = this.#drafter.draft(sequence, Math.min(left, budget - given), decodes.length)
      if (draft.length === 0 || !this.blocks.extend(sequence, draft.length)) continue
      slice.draft = draft
      slice.count += draft.length
      given += draft.length
    }
    return given
  }

  /** Room for the token to be computed next, taken from the last of the running if need be; false if that is itself. */
  #makeRoom(sequence: Sequence): boolean {
    while (!this.blocks.grow(sequence)) {
      const victim = this.#running.at(-1)!
      this.#preempt(victim)
      if (victim === sequence) return false
    }
    return true
  }

  #preempt(victim: Sequence): void {
    this.#leave(victim)
    victim.state = 'waiting'
    victim.preemptions++
    this.#waiting.push(victim)
    this.counts.preemptions++
  }

  /** A static batch is made while it is not full, somebody waits and none of it has ended. */
  #open(): void {
    const isFull = this.#running.length === this.#options.maxNumSeqs || this.#waiting.size === 0
    if (this.#running.length === 0 || this.#options.policy !== 'static') this.#isOpen = true
    else if (isFull) this.#isOpen = false
  }

  #leave(sequence: Sequence): void {
    this.blocks.release(sequence)
    this.#running.splice(this.#running.indexOf(sequence), 1)
  }

  #unhold({ held }: Group): Sequence | undefined {
    const next = held.shift()
    if (!next) return undefined
    this.#held--
    this.#waiting.push(next)
    return next
  }
}
