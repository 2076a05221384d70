// One choice of one request while the engine works on it: its tokens, and how far they are in the KV cache. Pure data
// and the rule by which it ends; scheduler.ts moves it from waiting to running to finished, blocks.ts fills its table.
import type { Sampling } from '../../queue/job.ts'
import { type BlockHash, blockHash, rootHash } from '../../queue/prefix.ts'
import { IntList } from './ints.ts'

/** One request as it reaches the engine. */
export type SequenceRequest = {
  id: string
  prompt: Uint32Array
  sampling: Sampling
  /** Per choice the ids it already emitted, on this engine or another; [] for a fresh request. */
  resume: Uint32Array[]
  /** Salt of the block hashes: sequences share blocks only under the same salt. */
  salt: string
  /** LoRA adapter; 0 is the base model. */
  adapter: number
  /** Priority class, 0 first. */
  class: number
}

/** `stopTokenId` is absent for end of sequence. */
export type Ending = { reason: 'stop' | 'length'; stopTokenId?: number }

export class Sequence {
  readonly request: SequenceRequest
  readonly choice: number
  /** Order of arrival, over all requests of the engine. */
  readonly arrival: number
  /** Prompt, then output. */
  readonly tokens: IntList
  /** Tokens whose K and V are in the cache. */
  computed = 0
  /** The block table; empty unless running. */
  readonly blocks = new IntList()
  /** Blocks of the table that are computed and can be found by their hash, counted from the first. */
  published = 0
  /** Prompt tokens that need no log-probability any more, counted from the first; all of them unless asked for. */
  scored: number
  /** Tokens found in the cache, not counting what was computed for it before a preemption. */
  cachedTokens = 0
  preemptions = 0
  state: 'waiting' | 'running' | 'finished' = 'waiting'
  /** Hashes of the full blocks, as far as they were asked for. */
  #hashes: BlockHash[] = []
  readonly #root: BlockHash

  constructor(
    request: SequenceRequest,
    choice: number,
    arrival: number,
    root = rootHash(request.salt, request.adapter),
  ) {
    this.request = request
    this.choice = choice
    this.arrival = arrival
    this.#root = root
    const resumed = request.resume[choice] ?? new Uint32Array()
    this.tokens = new IntList(request.prompt.length + resumed.length + 64)
    this.tokens.append(request.prompt)
    this.tokens.append(resumed)
    this.scored = this.choice === 0 && scoresPrompt(request) ? 1 : request.prompt.length
  }

  get length(): number {
    return this.tokens.length
  }

  /** Tokens sampled so far, before a resume included: the position the sampler's random numbers are counted by. */
  get generated(): number {
    return this.tokens.length - this.request.prompt.length
  }

  get uncomputed(): number {
    return this.tokens.length - this.computed
  }

  /** So many more tokens are computed. */
  compute(count: number): void {
    this.computed += count
    this.scored = Math.max(this.scored, Math.min(this.computed + 1, this.request.prompt.length))
  }

  /** Tokens whose K and V may come from the cache; what a score needs must be computed. */
  get reusable(): number {
    return this.scored < this.request.prompt.length ? this.scored - 1 : this.tokens.length
  }

  /** Another choice that says the same so far. */
  fork(choice: number): Sequence {
    const child = new Sequence(this.request, choice, this.arrival, this.#root)
    child.tokens.append(this.tokens.view.subarray(child.tokens.length))
    child.scored = this.scored
    return child
  }

  /** The names of the blocks of another choice, which says the same as far as they go. */
  inheritHashes(parent: Sequence): void {
    this.#hashes = parent.#hashes.slice()
  }

  /** Hash of block `index`, whose tokens must be known. */
  hash(index: number, blockSize: number): BlockHash {
    for (let i = this.#hashes.length; i <= index; i++) {
      const parent = this.#hashes[i - 1] ?? this.#root
      this.#hashes.push(blockHash(parent, this.tokens.view, i * blockSize, (i + 1) * blockSize))
    }
    return this.#hashes[index]!
  }

  /** Whether the last token ended the sequence. */
  ending(eosTokenIds: readonly number[], maxModelLen: number): Ending | null {
    const { sampling } = this.request
    if (this.generated > 0 && this.generated >= sampling.minTokens) {
      const last = this.tokens.at(this.tokens.length - 1)
      if (!sampling.ignoreEos && eosTokenIds.includes(last)) return { reason: 'stop' }
      if (sampling.stopTokenIds.includes(last)) return { reason: 'stop', stopTokenId: last }
    }
    if (this.generated >= sampling.maxTokens || this.tokens.length >= maxModelLen) return { reason: 'length' }
    return null
  }
}

/** Whether the prompt's log-probabilities are asked for and have not reached the journal with a first token. */
function scoresPrompt({ sampling, resume }: SequenceRequest): boolean {
  return (sampling.promptLogprobs ?? null) !== null && resume.every((ids) => ids.length === 0)
}

/** Below 0 if `a` is to be served before `b`: class, then arrival, then choice. */
export function precedence(a: Sequence, b: Sequence): number {
  return a.request.class - b.request.class || a.arrival - b.arrival || a.choice - b.choice
}
