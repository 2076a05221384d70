// One request as it reaches the engine.
import type { Sampling } from '../../queue/job.ts'

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
