// The requests of the simulation: short prompts, some of which begin alike, one to three choices, stop strings; and the
// poison, whose computation kills whatever engine runs it.
import type { Job } from '../../queue/job.ts'
import type { Random } from '../bench/random.ts'
import { MODEL, REVISION } from './engine-node.ts'
import { LETTERS } from './model.ts'

const POISON = 63
const SHARED = [8, 9, 10, 11, 12, 13, 14, 15]

export const isPoisonId = (id: string): boolean => id.startsWith('poison')

/** Kills the engine that computes it. */
export function isPoison({ prompt }: { prompt: Uint32Array }): boolean {
  return prompt[0] === POISON
}

export function randomJob(random: Random, id: string): Job {
  const shared = SHARED.slice(0, random.integer(0, SHARED.length))
  const own = Array.from({ length: random.integer(1, 12) }, () => random.integer(0, 50))
  const letter = () => LETTERS[random.integer(0, LETTERS.length - 1)]!
  const stop = Array.from({ length: random.integer(0, 2) }, () => letter() + letter() + letter())
  return {
    id,
    model: MODEL,
    revision: REVISION,
    tenant: random.pick(['t1', 't2']),
    gateway: '',
    class: random.pick([1, 1, 2]),
    adapter: 0,
    salt: '',
    prompt: Uint32Array.from([...(isPoisonId(id) ? [POISON] : shared), ...own]),
    sampling: {
      n: random.pick([1, 1, 1, 2, 3]),
      maxTokens: random.integer(1, 48),
      minTokens: random.pick([0, 0, 5]),
      temperature: 1,
      topP: 1,
      topK: 0,
      minP: 0,
      presencePenalty: 0,
      frequencyPenalty: 0,
      repetitionPenalty: 1,
      logitBias: [],
      allowedTokenIds: null,
      seed: String(random.integer(0, 1e6)),
      stop,
      stopTokenIds: [],
      ignoreEos: random.uniform() < 0.5,
      includeStopString: random.uniform() < 0.2,
      skipSpecialTokens: true,
      logprobs: null,
    },
    maxWaitMs: 0,
  }
}
