// Which rows of a step have their logits taken, and what for: to sample the token that follows, or to score a token of
// the prompt that is known. Sampled rows come first, both in the order of the slices. Pure; engine.ts hands them to
// batch.ts (which rows) and to sample/sampler.ts (what for).
import type { Slice } from './scheduler.ts'
import type { Sequence } from './sequence.ts'

export type LogitRow = {
  sequence: Sequence
  /** Row of the step. */
  row: number
  /** Guesses that stand between the known tokens and the one to be sampled. */
  draft: readonly number[]
  /** Of the prompt, the token to score; null: one is sampled. */
  scored: number | null
}

const NONE: readonly number[] = []

export function logitRows(slices: readonly Slice[]): { sampled: LogitRow[]; scored: LogitRow[] } {
  const sampled: LogitRow[] = []
  const scored: LogitRow[] = []
  let end = 0
  for (const { sequence, begin, count, yieldsToken, forks, draft } of slices) {
    const start = end
    end += count
    if (yieldsToken) {
      for (let i = 0; i <= draft.length; i++) {
        const before = i === 0 ? NONE : draft.slice(0, i)
        sampled.push({ sequence, row: end - 1 - draft.length + i, draft: before, scored: null })
      }
      for (const fork of forks) sampled.push({ sequence: fork, row: end - 1, draft: NONE, scored: null })
    }
    const { prompt } = sequence.request
    const last = Math.min(begin + count, prompt.length - 1)
    for (let index = sequence.scored; index <= last; index++) {
      scored.push({ sequence, row: start + index - 1 - begin, draft: NONE, scored: index })
    }
  }
  return { sampled, scored }
}
