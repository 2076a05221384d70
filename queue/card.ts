// A model card is all a gateway needs to know of a model: it validates, encodes and counts from the card alone, so
// a pool with no engine running still answers 400s exactly and queues the rest. Engines write cards when they
// have read their model; cards outlive them. The large texts (tokenizer.json, chat template) are stored by content
// hash beside the card (queue/models.ts).
import { z } from 'zod'

export const Card = z.object({
  /** First of --served-model-name: the pool's name and the `model` of every answer. */
  name: z.string().min(1).max(256),
  /** Other names the same pool answers to. */
  aliases: z.array(z.string()),
  /** SHA-256 of the manifest of the model's files. */
  revision: z.string(),
  /** Kernel ABI, instruction path, dtype, KV dtype, TP degree: work moves only between equal ones. */
  numerics: z.string(),
  /** Where the weights came from, as given (`root` in /v1/models). */
  root: z.string(),
  created: z.int(),
  maxModelLength: z.int().positive(),
  /** Tokens the smallest engine of the pool can hold; a request above it can never run. */
  kvTokens: z.int().positive(),
  blockSize: z.int().positive(),
  vocabularySize: z.int().positive(),
  /** Content hash of tokenizer.json. */
  tokenizer: z.string(),
  /** Content hash of the chat template; null if the model has none. */
  chatTemplate: z.string().nullable(),
  /** What templates may refer to: bos_token, eos_token, pad_token, unk_token and so on, as text. */
  specialTokens: z.record(z.string(), z.string()),
  eosTokenIds: z.array(z.int()),
  /** Defaults of sampling from generation_config.json, as in vLLM. */
  defaults: z.object({
    temperature: z.number().optional(),
    topP: z.number().optional(),
    topK: z.int().optional(),
    minP: z.number().optional(),
    repetitionPenalty: z.number().optional(),
    maxTokens: z.int().optional(),
  }),
  maxLogprobs: z.int(),
})
export type Card = z.infer<typeof Card>
