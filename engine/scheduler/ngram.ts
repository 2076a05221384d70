// Guesses of the next tokens by prompt lookup: what followed the last few tokens when they last occurred in the prompt or
// the output. Answers that quote their prompt are full of such repetitions. Called by scheduler.ts for sequences that
// decode; a guess costs one row of the step and can never change what is sampled, only how soon.
//
// Occurrences are found as in LZ77 (zlib's deflate): a hash of `promptLookupMin` tokens leads to the last position where
// they ended, each position to the one before it. Per new token that is one insertion and a bounded walk, however long
// the sequence is.
import type { Sequence } from './sequence.ts'

export type Speculation = {
  /** Guesses per step at most. */
  numSpeculativeTokens: number
  /** The longest and the shortest run of last tokens to look for. */
  promptLookupMax: number
  promptLookupMin: number
  /** With more sequences than these decoding at once the step is full without guesses; null: never. */
  disableByBatchSize: number | null
}

/** Occurrences looked at per guess. */
const MAX_WALK = 16

/** Ends of the n-grams of one sequence: the last by hash, and before each the one before. */
type Index = { last: Map<number, number>; before: number[] }

export class NgramDrafter {
  readonly #options: Speculation
  readonly #indices = new WeakMap<Sequence, Index>()

  constructor(options: Speculation) {
    this.#options = options
  }

  /** At most `most` tokens that may follow the last one, with so many sequences decoding. */
  draft(sequence: Sequence, most: number, decoding: number): number[] {
    const { numSpeculativeTokens, disableByBatchSize } = this.#options
    const count = Math.min(most, numSpeculativeTokens)
    if (count <= 0 || decoding > (disableByBatchSize ?? Number.POSITIVE_INFINITY)) return []
    const tokens = sequence.tokens.view
    const match = this.#find(tokens, this.#index(sequence, tokens))
    if (match === -1) return []
    // Where the copy runs into its own beginning it goes on with what it has copied: a loop is guessed whole.
    const period = tokens.length - 1 - match
    return Array.from({ length: count }, (_, i) => tokens[match + 1 + (i % period)]!)
  }

  /** The end of the longest run equal to the last tokens, the latest of equally long ones; -1: none. */
  #find(tokens: Int32Array, { last, before }: Index): number {
    const { promptLookupMin, promptLookupMax } = this.#options
    const end = tokens.length - 1
    let best = -1
    let longest = promptLookupMin - 1
    let at = last.get(hash(tokens, end, promptLookupMin)) ?? -1
    for (let walked = 0; at !== -1 && walked < MAX_WALK && longest < promptLookupMax; walked++, at = before[at]!) {
      let length = 0
      while (length < promptLookupMax && length <= at && tokens[at - length] === tokens[end - length]) length++
      if (length > longest) {
        longest = length
        best = at
      }
    }
    return best
  }

  /** All n-grams that end before the last token. */
  #index(sequence: Sequence, tokens: Int32Array): Index {
    let index = this.#indices.get(sequence)
    if (!index) {
      index = { last: new Map(), before: [] }
      this.#indices.set(sequence, index)
    }
    const { last, before } = index
    for (let end = before.length; end < tokens.length - 1; end++) {
      const key = hash(tokens, end, this.#options.promptLookupMin)
      before.push(last.get(key) ?? -1)
      last.set(key, end)
    }
    return index
  }
}

/** FNV-1a over the n tokens that end at `end`, or those that there are. */
function hash(tokens: Int32Array, end: number, n: number): number {
  let value = 0x811c9dc5
  for (let i = Math.max(0, end - n + 1); i <= end; i++) value = Math.imul(value ^ tokens[i]!, 0x01000193)
  return value
}
