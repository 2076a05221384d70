// How far one model's logits are from a golden's, gathered position by position while the model runs.
import type { GoldenPrompt } from './golden.ts'

export class Comparison {
  /** Largest |Δlogit| of the prompts' last positions, and |Δlogprob| of their tokens. */
  logitError = 0
  logprobError = 0
  /** Positions whose 20 largest logits are the golden's, within the tolerance. */
  topPositions = { agree: 0, of: 0 }
  /** Tokens up to the first that differs; a miss is a prompt where that one was not a toss-up. */
  greedyTokens = { equal: 0, of: 0 }
  greedyMisses = 0
  readonly #tolerance: number

  constructor(tolerance: number) {
    this.#tolerance = tolerance
  }

  get passed(): boolean {
    const { agree, of } = this.topPositions
    return Math.max(this.logitError, this.logprobError) <= this.#tolerance && agree === of && this.greedyMisses === 0
  }

  /** The logits at `position` of the prompt. */
  logits(golden: GoldenPrompt, position: number, logits: Float32Array): void {
    const last = position === golden.ids.length - 1
    if (last && golden.last_logits) {
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

  /** Of the tokens after a prompt. Where the golden's choice was closer than the tolerance, another is no miss. */
  greedy(golden: GoldenPrompt, tokens: number[]): void {
    const differs = golden.greedy.findIndex((token, i) => token !== tokens[i])
    this.greedyTokens.of += golden.greedy.length
    this.greedyTokens.equal += differs < 0 ? golden.greedy.length : differs
    if (differs >= 0 && !((golden.greedy_margins?.[differs] ?? Infinity) < this.#tolerance)) this.greedyMisses++
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
function atLeast(error: number, next: number): number {
  return Number.isNaN(next) ? Infinity : Math.max(error, next)
}

function logSumExp(logits: Float32Array): number {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity)
  return max + Math.log(logits.reduce((sum, value) => sum + Math.exp(value - max), 0))
}
