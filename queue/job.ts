// A Job is what the gateway hands to the engine: token ids and sampling, nothing that has to be looked up
// again. Everything the client left out has been decided before it is written (defaults, seed, limits), so that
// any engine, now or after a crash, computes the same continuation from the same bytes.
//
// An engine treats the queue as untrusted: `decodeJob` checks every field.
import { z } from 'zod'

const tokenId = z.int().nonnegative()

export const Sampling = z.object({
  /** Number of choices; each is one sequence in the engine. */
  n: z.int().min(1).max(128),
  maxTokens: z.int().min(1),
  minTokens: z.int().min(0),
  /** 0 is greedy. */
  temperature: z.number().min(0),
  topP: z.number().gt(0).max(1),
  /** 0 keeps the whole vocabulary. */
  topK: z.int().min(0),
  minP: z.number().min(0).max(1),
  presencePenalty: z.number(),
  frequencyPenalty: z.number(),
  repetitionPenalty: z.number().gt(0),
  logitBias: z.array(z.tuple([tokenId, z.number()])),
  allowedTokenIds: z.array(tokenId).nullable(),
  /** Token sequences that the output must not contain. */
  badWords: z.array(z.array(tokenId).min(1)).optional(),
  /** Key of the Philox generator, int64 as a decimal string (a JavaScript number would lose its low bits). */
  seed: z.string().regex(/^-?\d{1,19}$/),
  stop: z.array(z.string()),
  stopTokenIds: z.array(tokenId),
  ignoreEos: z.boolean(),
  includeStopString: z.boolean(),
  skipSpecialTokens: z.boolean(),
  /** null: no log-probabilities; k: those of the sampled token and of the k most likely. */
  logprobs: z.int().min(0).nullable(),
  /** The n best of n beams instead of n samples; temperature and penalties do not count. */
  useBeamSearch: z.boolean().optional(),
  /** Of beam search: answers are ranked by log-probability / length ^ lengthPenalty; 1 if absent. */
  lengthPenalty: z.number().optional(),
  /** The same for the tokens of the prompt; absent: none. */
  promptLogprobs: z.int().min(0).nullable().optional(),
})
export type Sampling = z.infer<typeof Sampling>

export const Job = z.object({
  id: z.string().regex(/^[\w-]{1,80}$/),
  /** Name of the model card, which is the name of the pool. */
  model: z.string().min(1),
  /** Card revision the prompt was encoded for; only an engine of the same revision may run it. */
  revision: z.string(),
  tenant: z.string(),
  /** Channel of the gateway that holds the client's connection. */
  gateway: z.string(),
  /** Priority class, 0 first. */
  class: z.int().min(0).max(99),
  /** LoRA adapter; 0 is the base model. */
  adapter: z.int().min(0),
  /** Salt of the KV-block hashes: sequences share blocks only under the same salt. */
  salt: z.string(),
  /** Hashes of the first KV blocks (prefix.ts): lets claim prefer an engine that holds them. */
  prefixes: z
    .array(z.string().regex(/^[\w-]{1,64}$/))
    .max(16)
    .optional(),
  prompt: z.instanceof(Uint32Array),
  sampling: Sampling,
  /** How long the job may wait to be started, by Redis' clock from its admission; 0 for ever. */
  maxWaitMs: z.int().min(0),
})
export type Job = z.infer<typeof Job>

/** KV tokens the job may come to hold: what an engine must have free before it claims the job. */
export function jobCost(job: Job): number {
  return job.prompt.length + job.sampling.n * job.sampling.maxTokens
}

/** The fields of the Redis hash of a job: the prompt as little-endian u32, the rest as JSON. */
export function encodeJob(job: Job): { prompt: Buffer; spec: string } {
  const { prompt, ...spec } = job
  return { prompt: Buffer.from(prompt.buffer, prompt.byteOffset, prompt.byteLength), spec: JSON.stringify(spec) }
}

/** Throws a ZodError naming the field when the entry is not a job. */
export function decodeJob(fields: { prompt: Buffer; spec: string }): Job {
  const ids = new Uint32Array(Math.floor(fields.prompt.length / 4))
  for (let i = 0; i < ids.length; i++) ids[i] = fields.prompt.readUInt32LE(4 * i)
  return Job.parse({ ...JSON.parse(fields.spec), prompt: ids })
}
