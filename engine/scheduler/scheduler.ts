// Who computes how many tokens in the next step: continuous batching (Orca) under a token budget, with prompts cut in
// chunks that fill what the decodes leave (arXiv 2308.16369). Pure: no tensors, no clock. engine.ts calls schedule(),
// computes the slices, and tells what came of them by advance() and finish().
//
// A sequence is admitted with blocks for all its known tokens, so that only decoding ever needs another one. When there
// is none, the last of the running (lowest class, then latest arrival) gives its blocks up and waits again, to be
// recomputed; much of it is often still cached. Running is kept in order of precedence, hence the first of them can take
// from all others, and what fits alone in the pool always ends: add() refuses the rest. Waiting is first come, first
// served within a class, and nobody passes a sequence that does not fit yet, so none starves.
import { rootHash } from '../../queue/prefix.ts'
import { RequestRefused } from '../errors.ts'
import { Blocks } from './blocks.ts'
import { type Ending, precedence, Sequence, type SequenceRequest } from './sequence.ts'
import { WaitingQueue } from './waiting.ts'

export type SchedulerOptions = {
  /** Tokens of KV per block. */
  blockSize: number
  /** KV blocks of the pool. */
  numBlocks: number
  /** Prompt and output of a sequence together; it finishes with `length` there. */
  maxModelLen: number
  maxNumSeqs: number
  /** Token budget of a step, prefill and decode together. */
  maxNumBatchedTokens: number
  /** A prompt gets at most this many tokens of a step; 0: the whole budget. */
  longPrefillTokenThreshold: number
  enableChunkedPrefill: boolean
  enablePrefixCaching: boolean
  /** End of sequence, from config.json and generation_config.json. */
  eosTokenIds: readonly number[]
}

/** Tokens [begin, begin + count) of a sequence, to be computed in one step; the last known one yields logits. */
export type Slice = { sequence: Sequence; begin: number; count: number; yieldsToken: boolean }

/** The choices of one request. `held` wait until the first of them has computed the prompt, to share its blocks. */
type Group = { live: Map<number, Sequence>; held: Sequence[] }

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
  /** Blocks that stay free when another sequence is admitted, so that its neighbours can go on for a while. */
  readonly #reserve: number

  constructor(options: SchedulerOptions) {
    checkOptions(options)
    this.#options = options
    this.blocks = new Blocks(options.numBlocks, options.blockSize)
    this.#reserve = Math.floor(options.numBlocks / 100)
  }

  get running(): readonly Sequence[] {
    return this.#running
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
    this.#refuseMisfit(request)
    const arrival = this.#arrivals++
    // Without the prefix cache a root of its own lets the choices of one request share, and nobody else.
    const salt = this.#options.enablePrefixCaching ? request.salt : `${request.salt}\nrequest ${arrival}`
    const root = rootHash(salt, request.adapter)
    const all = Array.from({ length: request.sampling.n }, (_, i) => new Sequence(request, i, arrival, root))
    const over: { sequence: Sequence; ending: Ending }[] = []
    const live = new Map<number, Sequence>()
    for (const sequence of all) {
      const ending = this.ending(sequence)
      if (ending) over.push({ sequence, ending })
      else live.set(sequence.choice, sequence)
    }
    if (live.size === 0) return over
    const [first, ...others] = live.values()
    const held = request.prompt.length > this.#options.blockSize ? others : []
    this.#groups.set(request.id, { live, held })
    this.#held += held.length
    this.#waiting.push(first!)
    if (held.length === 0) for (const sequence of others) this.#waiting.push(sequence)
    return over
  }

  /** Drops a request, or one of its choices. Unknown ones are ignored: they may have finished meanwhile. */
  abort(id: string, choice?: number): void {
    const live = this.#groups.get(id)?.live
    const dropped = choice === undefined ? [...(live?.values() ?? [])].reverse() : [live?.get(choice)]
    for (const sequence of dropped) if (sequence) this.finish(sequence)
  }

  /** Decodes first, then prompts under way, then new sequences while there are budget, places and blocks. */
  schedule(): Slice[] {
    const slices: Slice[] = []
    let budget = this.#options.maxNumBatchedTokens
    const give = (sequence: Sequence, limit: number) => {
      const count = Math.min(sequence.uncomputed, limit, budget)
      slices.push({ sequence, begin: sequence.computed, count, yieldsToken: count === sequence.uncomputed })
      budget -= count
    }
    // A victim is always the last one, which has not been given anything yet.
    for (let i = 0; i < this.#running.length; i++) {
      const sequence = this.#running[i]!
      if (sequence.uncomputed === 1 && this.#makeRoom(sequence)) give(sequence, 1)
    }
    const { enableChunkedPrefill, longPrefillTokenThreshold } = this.#options
    const chunk = (enableChunkedPrefill && longPrefillTokenThreshold) || Number.POSITIVE_INFINITY
    for (const sequence of this.#running) if (sequence.uncomputed > 1 && budget > 0) give(sequence, chunk)
    while (budget > 0) {
      const sequence = this.#admit(budget)
      if (!sequence) break
      give(sequence, chunk)
    }
    return slices
  }

  /** A slice was computed: its K and V are in the cache. */
  advance({ sequence, count }: Slice): void {
    sequence.computed += count
    this.blocks.publish(sequence)
    if (this.#held === 0 || sequence.computed < sequence.request.prompt.length) return
    const group = this.#groups.get(sequence.request.id)!
    for (const other of group.held.splice(0)) {
      // What it shares with its own request was not found in the cache.
      other.cachedTokens = 0
      this.#unhold(other)
    }
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
      const next = group.held.shift()
      if (next) this.#unhold(next)
    }
    sequence.state = 'finished'
  }

  checkIntegrity(): void {
    this.blocks.checkIntegrity(this.#running)
    for (let i = 1; i < this.#running.length; i++) {
      if (precedence(this.#running[i - 1]!, this.#running[i]!) >= 0) throw new Error('the running are out of order')
    }
  }

  #admit(budget: number): Sequence | null {
    const sequence = this.#waiting.peek()
    if (!sequence || this.#running.length === this.#options.maxNumSeqs) return null
    const matched = this.blocks.match(sequence)
    const cached = matched.length * this.blocks.size
    if (!this.#options.enableChunkedPrefill && sequence.length - cached > budget) return null
    if (!this.blocks.admit(sequence, matched, this.#running.length === 0 ? 0 : this.#reserve)) return null
    this.#waiting.remove(sequence)
    sequence.state = 'running'
    let at = this.#running.length
    while (at > 0 && precedence(sequence, this.#running[at - 1]!) < 0) at--
    this.#running.splice(at, 0, sequence)
    if (sequence.cachedTokens === null) {
      this.counts.prefixQueries += sequence.length
      this.counts.prefixHits += cached
      sequence.cachedTokens = Math.min(cached, sequence.request.prompt.length)
    }
    return sequence
  }

  /** Room for the token to be computed next, taken from the last of the running if need be; false if that is itself. */
  #makeRoom(sequence: Sequence): boolean {
    while (!this.blocks.grow(sequence)) {
      const victim = this.#running.at(-1)!
      this.#leave(victim)
      victim.state = 'waiting'
      this.#waiting.push(victim)
      this.counts.preemptions++
      if (victim === sequence) return false
    }
    return true
  }

  #leave(sequence: Sequence): void {
    this.blocks.release(sequence)
    this.#running.splice(this.#running.indexOf(sequence), 1)
  }

  #unhold(sequence: Sequence): void {
    this.#held--
    this.#waiting.push(sequence)
  }

  /** Below the model's length a request may still be too long for this pool, and would wait for ever. */
  #refuseMisfit({ prompt, sampling }: SequenceRequest): void {
    const { maxModelLen, numBlocks, blockSize } = this.#options
    if (prompt.length === 0) throw new RequestRefused('request_failed', 'prompt: empty; give at least one token')
    if (prompt.length >= maxModelLen) {
      throw new RequestRefused(
        'context_length_exceeded',
        `prompt: ${prompt.length} tokens; at most ${maxModelLen - 1} leave room for an answer (--max-model-len ${maxModelLen})`,
      )
    }
    // The last token is sampled, never computed.
    const longest = Math.min(prompt.length + sampling.maxTokens, maxModelLen) - 1
    if (this.blocks.needed(longest) > numBlocks) {
      throw new RequestRefused(
        'context_length_exceeded',
        `max_tokens: ${prompt.length} prompt tokens and up to ${sampling.maxTokens} more do not fit in the ` +
          `${numBlocks * blockSize} tokens of KV cache; lower max_tokens or raise --kv-cache-memory-bytes`,
      )
    }
  }
}

function checkOptions(options: SchedulerOptions): void {
  const { maxNumSeqs, maxNumBatchedTokens, maxModelLen, numBlocks, blockSize, enableChunkedPrefill } = options
  for (const [name, value] of Object.entries({ maxNumSeqs, maxNumBatchedTokens, maxModelLen, numBlocks, blockSize })) {
    if (!Number.isInteger(value) || value < 1) throw new Error(`${name}: ${value}; must be a whole number above 0`)
  }
  if (maxNumBatchedTokens < maxNumSeqs) {
    throw new Error(
      `--max-num-batched-tokens ${maxNumBatchedTokens} is below --max-num-seqs ${maxNumSeqs}: not every sequence would get a token per step`,
    )
  }
  if (!enableChunkedPrefill && maxNumBatchedTokens < maxModelLen) {
    throw new Error(
      `--max-num-batched-tokens ${maxNumBatchedTokens} is below --max-model-len ${maxModelLen}: without chunked prefill a long prompt would never run`,
    )
  }
}
