// config.json of a checkpoint -> ModelConfig, the numbers a model is built from. Read before any weight: what this
// engine cannot run is refused here, with the field's name. Hugging Face's defaults apply where a field is absent.
import { z } from 'zod'
import { checkJson } from '../weights/json.ts'
import { ModelError } from '../weights/source.ts'
import { parseRope, type RopeConfig } from './rope.ts'

export type ModelConfig = {
  architecture: Architecture
  vocabularySize: number
  hiddenSize: number
  intermediateSize: number
  layers: number
  heads: { query: number; kv: number; size: number }
  qkvBias: boolean
  outputBias: boolean
  mlpBias: boolean
  tiedEmbeddings: boolean
  activation: 'silu' | 'gelu' | 'gelu_tanh'
  normEps: number
  rope: RopeConfig
  /** A token attends to this many positions, itself included; 0: to all. */
  window: number
  maxPositions: number
  /** The type the checkpoint was saved in. */
  dtype: 'float32' | 'float16' | 'bfloat16'
  bosTokenId: number | null
  eosTokenIds: number[]
}

/** What differs between the families that share the layers of llama.ts. */
const families = {
  LlamaForCausalLM: (raw: Raw) => ({
    qkvBias: raw.attention_bias,
    outputBias: raw.attention_bias,
    mlpBias: raw.mlp_bias,
    window: 0,
  }),
  MistralForCausalLM: (raw: Raw) => ({
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    window: raw.sliding_window === undefined ? 4096 : (raw.sliding_window ?? 0),
  }),
  Qwen2ForCausalLM: (raw: Raw) => {
    if (raw.use_sliding_window) throw unsupported('use_sliding_window', 'true', 'false')
    return { qkvBias: true, outputBias: false, mlpBias: false, window: 0 }
  },
}
export type Architecture = keyof typeof families

const activations: Record<string, ModelConfig['activation']> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
}

const size = z
  .int()
  .positive()
  .max(2 ** 31 - 1)
const tokenId = z
  .int()
  .nonnegative()
  .max(2 ** 31 - 1)
const flag = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false)

const Header = z.looseObject({
  architectures: z.array(z.string()).min(1),
  quantization_config: z.looseObject({ quant_method: z.string().default('unknown') }).nullish(),
})

const Raw = z.looseObject({
  vocab_size: size,
  hidden_size: size,
  intermediate_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  attention_bias: flag,
  mlp_bias: flag,
  tie_word_embeddings: flag,
  hidden_act: z.string().default('silu'),
  rms_norm_eps: z.number().positive().max(1).default(1e-6),
  sliding_window: size.nullish(),
  use_sliding_window: flag,
  max_position_embeddings: size,
  dtype: z.string().nullish(),
  torch_dtype: z.string().nullish(),
  bos_token_id: tokenId.nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId)], 'expected a token id or a list of them').nullish(),
})
type Raw = z.infer<typeof Raw>

export function parseModelConfig(json: unknown): ModelConfig {
  const architecture = parseFamily(json)
  const raw = checkJson('config.json', Raw, json)
  const heads = parseHeads(raw)
  return {
    architecture,
    ...families[architecture](raw),
    vocabularySize: raw.vocab_size,
    hiddenSize: raw.hidden_size,
    intermediateSize: raw.intermediate_size,
    layers: raw.num_hidden_layers,
    heads,
    tiedEmbeddings: raw.tie_word_embeddings,
    activation: choose('hidden_act', raw.hidden_act, activations),
    normEps: raw.rms_norm_eps,
    rope: parseRope(raw, heads.size),
    maxPositions: raw.max_position_embeddings,
    dtype: parseDtype(raw),
    bosTokenId: raw.bos_token_id ?? null,
    eosTokenIds: [raw.eos_token_id ?? []].flat(),
  }
}

/** Refuses what no loader or layer of ours reads, before the numbers are looked at. */
function parseFamily(json: unknown): Architecture {
  const { architectures, quantization_config } = checkJson('config.json', Header, json)
  const architecture = architectures[0]!
  choose('architectures', architecture, families)
  if (quantization_config) {
    const instead = 'none; use a float32, float16 or bfloat16 checkpoint'
    throw unsupported('quantization_config.quant_method', quantization_config.quant_method, instead)
  }
  return architecture as Architecture
}

function parseHeads(raw: Raw): ModelConfig['heads'] {
  const query = raw.num_attention_heads
  const kv = raw.num_key_value_heads ?? query
  if (query % kv !== 0) {
    throw new ModelError(`config.json: num_attention_heads: ${query} is not a multiple of num_key_value_heads, ${kv}`)
  }
  if (!raw.head_dim && raw.hidden_size % query !== 0) {
    throw new ModelError(
      `config.json: hidden_size: ${raw.hidden_size} is not a multiple of num_attention_heads, ${query}, and head_dim is not given`,
    )
  }
  return { query, kv, size: raw.head_dim ?? raw.hidden_size / query }
}

function parseDtype(raw: Raw): ModelConfig['dtype'] {
  const field = raw.dtype ? 'dtype' : 'torch_dtype'
  const name = (raw.dtype ?? raw.torch_dtype ?? 'float32').replace(/^torch\./, '')
  return choose(field, name, { float32: 'float32', float16: 'float16', bfloat16: 'bfloat16' } as const)
}

function choose<Value>(field: string, name: string, values: Record<string, Value>): Value {
  const value = Object.hasOwn(values, name) ? values[name] : undefined
  if (value === undefined) throw unsupported(field, name, Object.keys(values).join(', '))
  return value
}

function unsupported(field: string, value: string, supported: string): ModelError {
  return new ModelError(`config.json: ${field}: ${value} is not supported; supported: ${supported}`)
}
