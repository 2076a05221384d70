// Beam search of one request, as vLLM's: n beams advance together, each step offers the 2n likeliest continuations of
// every beam, those that end are put aside and the n best of the others go on. Ranked by log-probability divided by
// (tokens of prompt and answer)^length_penalty; nothing is sampled. Called by engine.ts, which hands in what each beam
// may say next; beams are forks (scheduler.ts), so they share what they have in common.
//
// The search is over at max_tokens, or as soon as no beam can still come before the n-th best that has ended: with the
// same result as going on.
import type { Logprob } from './sample/sampler.ts'
import type { Scheduling } from './scheduler/scheduler.ts'
import type { Ending, Sequence, SequenceRequest } from './scheduler/sequence.ts'

/** Some tokens of an answer: the last of them, and those before it. */
type Hypothesis = {
  before: Hypothesis | null
  token: number
  records: Logprob[]
  logprob: number
  length: number
  ending: Ending
}
type Beam = { hypothesis: Hypothesis | null; candidates: Logprob[] | null }
export type Answer = { tokens: { token: number; records: Logprob[] }[]; ending: Ending }

export type BeamLimits = { eosTokenIds: readonly number[]; maxModelLen: number }

export class BeamSearch {
  /** For the scheduler: with as many log-probabilities as the search needs, and from its beginning in any case. */
  readonly request: SequenceRequest
  /** As it came. */
  readonly asked: SequenceRequest
  readonly #ends: Map<number, Ending>
  readonly #maxLength: number
  #beams = new Map<Sequence, Beam>()
  #ended: Hypothesis[] = []

  constructor(request: SequenceRequest, { eosTokenIds, maxModelLen }: BeamLimits) {
    const { sampling, prompt } = request
    const logprobs = Math.max(2 * sampling.n, sampling.logprobs ?? 0)
    this.asked = request
    this.request = { ...request, resume: [], sampling: { ...sampling, logprobs } }
    this.#maxLength = Math.min(sampling.maxTokens, maxModelLen - prompt.length)
    this.#ends = new Map(sampling.stopTokenIds.map((stopTokenId) => [stopTokenId, { reason: 'stop', stopTokenId }]))
    if (!sampling.ignoreEos) for (const id of eosTokenIds) this.#ends.set(id, { reason: 'stop' })
  }

  /** What a beam may say next, likeliest first. When all beams have been heard they go on; at the end, the answers. */
  offer(scheduler: Scheduling, sequence: Sequence, candidates: Logprob[]): Answer[] | null {
    if (this.#beams.size === 0) this.#beams.set(sequence, { hypothesis: null, candidates: null })
    this.#beams.get(sequence)!.candidates = candidates
    for (const beam of this.#beams.values()) if (!beam.candidates) return null
    const next = this.#extend()
    const live = next.map(({ hypothesis }) => hypothesis)
    if (!this.#isOver(live)) {
      this.#advance(scheduler, next)
      return null
    }
    for (const each of this.#beams.keys()) scheduler.finish(each)
    return this.#best([...this.#ended, ...live]).map((hypothesis) => this.#answer(hypothesis))
  }

  /** The best continuations that go on, and from which beam each comes. */
  #extend(): { from: Sequence; hypothesis: Hypothesis }[] {
    const { n, minTokens, logprobs } = this.asked.sampling
    const next: { from: Sequence; hypothesis: Hypothesis }[] = []
    for (const [from, { hypothesis: before, candidates }] of this.#beams) {
      for (const candidate of candidates!.slice(0, 2 * n)) {
        const records = logprobs === null ? [] : [candidate, ...candidates!.slice(0, logprobs)]
        const length = (before?.length ?? 0) + 1
        const logprob = (before?.logprob ?? 0) + candidate.logprob
        const end = this.#ends.get(candidate.id)
        const ending = end ?? { reason: 'length' }
        const hypothesis = { before, token: candidate.id, records, logprob, length, ending }
        if (!end) next.push({ from, hypothesis })
        else if (length >= minTokens) this.#ended.push(hypothesis)
      }
    }
    this.#ended = this.#best(this.#ended)
    return next.sort((a, b) => this.#score(b.hypothesis) - this.#score(a.hypothesis)).slice(0, n)
  }

  #isOver(live: Hypothesis[]): boolean {
    const { n, lengthPenalty = 1 } = this.asked.sampling
    const [best] = live
    if (!best || best.length === this.#maxLength) return true
    if (this.#ended.length < n) return false
    // Log-probabilities only fall; the length that divides them may be any up to the longest.
    const kindest = this.asked.prompt.length + (lengthPenalty > 0 ? this.#maxLength : best.length)
    return this.#score(this.#ended[n - 1]!) >= best.logprob / kindest ** lengthPenalty
  }

  /** A beam goes on with its first continuation and is forked for every other one. */
  #advance(scheduler: Scheduling, next: { from: Sequence; hypothesis: Hypothesis }[]): void {
    const beams = new Map<Sequence, Beam>()
    const survivors = new Set(next.map(({ from }) => from))
    for (const sequence of this.#beams.keys()) if (!survivors.has(sequence)) scheduler.finish(sequence)
    const taken = new Set([...survivors].map(({ choice }) => choice))
    const isExtended = new Set<Sequence>()
    // Forks first: a beam must not have gone on when it is forked.
    const grown = next.map(({ from, hypothesis }) => {
      if (!isExtended.has(from)) {
        isExtended.add(from)
        return { sequence: from, hypothesis }
      }
      let choice = 0
      while (taken.has(choice)) choice++
      taken.add(choice)
      return { sequence: scheduler.fork(from, choice), hypothesis }
    })
    for (const { sequence, hypothesis } of grown) {
      scheduler.extend(sequence, hypothesis.token)
      beams.set(sequence, { hypothesis, candidates: null })
    }
    this.#beams = beams
  }

  /** The n best, ties in the order in which they were found. */
  #best(hypotheses: Hypothesis[]): Hypothesis[] {
    return hypotheses.sort((a, b) => this.#score(b) - this.#score(a)).slice(0, this.asked.sampling.n)
  }

  /** The token that ended an answer does not count as its length. */
  #score({ logprob, length, ending }: Hypothesis): number {
    const { sampling, prompt } = this.asked
    return logprob / (prompt.length + length - (ending.reason === 'stop' ? 1 : 0)) ** (sampling.lengthPenalty ?? 1)
  }

  #answer(last: Hypothesis): Answer {
    const tokens: Answer['tokens'] = []
    for (let at: Hypothesis | null = last; at; at = at.before) tokens.push({ token: at.token, records: at.records })
    return { tokens: tokens.reverse(), ending: last.ending }
  }
}
