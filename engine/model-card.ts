// The card under which an engine's model is known to the gateways. Made by main.ts from the model's facts, before the
// weights are read.
import type { Card } from '../queue/card.ts'
import type { EngineConfig } from './config.ts'
import type { ModelFacts } from './load.ts'

/** `hashes`: of the texts that go to Redis beside the card. */
export function createCard(
  config: EngineConfig,
  facts: ModelFacts,
  hashes: { tokenizer: string; chatTemplate: string | null },
  nowMs: number,
): Card {
  const [name = config.model, ...aliases] = config.servedModelName
  return {
    name,
    aliases,
    revision: facts.revision,
    numerics: facts.numerics,
    root: config.model,
    created: Math.floor(nowMs / 1000),
    maxModelLength: facts.capacity.maxModelLength,
    kvTokens: facts.capacity.kvTokens,
    blockSize: facts.capacity.blockSize,
    vocabularySize: facts.vocabularySize,
    tokenizer: hashes.tokenizer,
    chatTemplate: hashes.chatTemplate,
    specialTokens: facts.specialTokens,
    eosTokenIds: facts.eosTokenIds,
    defaults: samplingDefaults(facts.generationConfig),
    maxLogprobs: config.maxLogprobs,
  }
}

/** The fields of generation_config.json that vLLM takes as defaults, under our names. */
export function samplingDefaults(generation: ModelFacts['generationConfig']): Card['defaults'] {
  const defaults: Card['defaults'] = {}
  if (generation.temperature != null) defaults.temperature = generation.temperature
  if (generation.top_p != null) defaults.topP = generation.top_p
  if (generation.top_k != null) defaults.topK = Math.max(0, generation.top_k)
  if (generation.min_p != null) defaults.minP = generation.min_p
  if (generation.repetition_penalty != null) defaults.repetitionPenalty = generation.repetition_penalty
  if (generation.max_new_tokens != null) defaults.maxTokens = generation.max_new_tokens
  return defaults
}
