// How far one model's logits are from a golden's, gathered position by position while the model runs.
import type { GoldenPrompt } from './golden.ts'
import { argmax } from './paged.ts'

export class Comparison {
  /** Largest |Δlogit| of the prompts' last positions, and |Δlogprob| of their tokens; null: the golden has none. */
  logitError: number | null = null
  logprobError: number | null = null
  /** Positions whose 20 largest logits are the golden's, within the tolerance. */
  topPositions = { agree: 0, of: 0 }
  /** Tokens up to the first that differs; a miss is a prompt where that one was not a toss-up. */
  greedyTokens = { equal: 0, of: 0 }
  greedyMisses = 0
  readonly #tolerance: number
  readonly #tossUp: number
  readonly #diverged = new Set<GoldenPrompt>()

  /** `tossUp`: the golden's token may lose by so much without being a miss. */
  constructor({ tolerance, tossUp }: { tolerance: number; tossUp: number }) {
    this.#tolerance = tolerance
    this.#tossUp = tossUp
  }

  get passed(): boolean {
    const { agree, of } = this.topPositions
    const isClose = Math.max(this.logitError ?? 0, this.logprobError ?? 0) <= this.#tolerance
    return isClose && agree === of && this.greedyMisses === 0
  }

  /** The logits at `position`, those of a prompt in ascending order: first its own tokens, then what follows greedily. */
  logits(golden: GoldenPrompt, position: number, logits: Float32Array): void {
    const step = position - golden.ids.length + 1
    if (step <= 0) this.#prompt(golden, position, logits)
    if (step >= 0) this.#greedy(golden, step, logits)
  }

  #prompt(golden: GoldenPrompt, position: number, logits: Float32Array): void {
    if (position === golden.ids.length - 1 && golden.last_logits) {
      for (const [i, value] of golden.last_logits.entries()) {
        this.logitError = atLeast(this.logitError, Math.abs(value - logits[i]!))
      }
    }
    const logprob = golden.prompt_logprobs?.[position + 1]
    if (typeof logprob === 'number') {
      const ours = logits[golden.ids[position + 1]!]! - logSumExp(logits)
      this.logprobError = atLeast(this.logprobError, Math.abs(logprob - ours))
    }
    const top = { ids: golden.top20_ids?.[position], logits: golden.top20_logits?.[position] }
    if (top.ids && top.logits) {
      this.topPositions.of++
      if (this.#topAgrees(top.ids, top.logits, logits)) this.topPositions.agree++
    }
  }

  /** After the first token that differs the two go different ways, and nothing can be compared. */
  #greedy(golden: GoldenPrompt, step: number, logits: Float32Array): void {
    this.greedyTokens.of++
    if (this.#diverged.has(golden)) return
    const token = argmax(logits)
    if (token === golden.greedy[step]) {
      this.greedyTokens.equal++
      return
    }
    this.#diverged.add(golden)
    const lostBy = logits[token]! - logits[golden.greedy[step]!]!
    if (!(lostBy < this.#tossUp)) this.greedyMisses++
  }

  /** Whether a prompt's greedy tokens are all the golden's. */
  isEqual(golden: GoldenPrompt): boolean {
    return !this.#diverged.has(golden)
  }

  /** Each listed logit is right, and none outside the list is above its end: ties may stand in either order. */
  #topAgrees(ids: number[], values: number[], logits: Float32Array): boolean {
    if (ids.some((id, i) => !(Math.abs(logits[id]! - values[i]!) <= this.#tolerance))) return false
    const listed = new Set(ids)
    const least = values.at(-1)! + this.#tolerance
    return logits.every((value, id) => value <= least || listed.has(id))
  }
}

/** Math.max, but a NaN error is infinite instead of hidden. */
function atLeast(error: number | null, next: number): number {
  return Number.isNaN(next) ? Infinity : Math.max(error ?? 0, next)
}

function logSumExp(logits: Float32Array): number {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity)
  return max + Math.log(logits.reduce((sum, value) => sum + Math.exp(value - max), 0))
}
