// Requests and chance for the tests of the scheduler and the engine.
import type { SequenceRequest } from '../../../engine/scheduler/sequence.ts'
import type { Sampling } from '../../../queue/job.ts'

export const greedy: Sampling = {
  n: 1,
  maxTokens: 16,
  minTokens: 0,
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  logitBias: [],
  allowedTokenIds: null,
  seed: '0',
  stop: [],
  stopTokenIds: [],
  ignoreEos: false,
  includeStopString: false,
  skipSpecialTokens: true,
  logprobs: null,
}

export function request(
  id: string,
  prompt: ArrayLike<number>,
  sampling: Partial<Sampling> = {},
  rest: Partial<SequenceRequest> = {},
): SequenceRequest {
  return {
    id,
    prompt: Uint32Array.from(prompt),
    sampling: { ...greedy, ...sampling },
    resume: [],
    salt: '',
    adapter: 0,
    class: 0,
    ...rest,
  }
}

/** Token ids first, first + 1, ... */
export const range = (length: number, first = 1) => Array.from({ length }, (_, i) => first + i)

/** Whole numbers below a limit from a seed: mulberry32. */
export function dice(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}
