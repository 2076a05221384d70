// From a checkpoint to something that computes logits: the one place that knows which architecture is which file.
// Called by the engine, scripts/llm.ts and scripts/verify.ts.
import assert from 'node:assert/strict'
import type { Device } from '../native/device.ts'
import type { Commands, KvLayer } from '../native/ops.ts'
import { elementBytes } from '../native/tensor.ts'
import type { WeightReader } from '../weights/load.ts'
import type { Architecture, ModelConfig } from './config.ts'
import { type Batch, Scratch, type Shared, type Step, type TakeLogits } from './layers.ts'
import { llama } from './llama.ts'
import { cosSinTable } from './rope.ts'
import { type Checkpoint, type Memory, Weights } from './weights.ts'

type Build = (weights: Weights, shared: Shared) => (step: Step, kv: KvLayer[]) => void

const architectures: Record<Architecture, Build> = {
  LlamaForCausalLM: llama,
  MistralForCausalLM: llama,
  Qwen2ForCausalLM: llama,
}

const names = { float32: 'f32', float16: 'f16', bfloat16: 'bf16', int8_per_token_head: 'i8' } as const

export type KvCacheDType = keyof typeof names
export const kvCacheDtypes = Object.keys(names) as KvCacheDType[]

/** Bytes of one head of k or v of one token; int8 has an f32 scale beside it. */
export function kvHeadBytes(dtype: KvCacheDType, headSize: number): number {
  return kvHeadElements(dtype, headSize) * elementBytes[names[dtype]]
}

function kvHeadElements(dtype: KvCacheDType, headSize: number): number {
  return dtype === 'int8_per_token_head' ? headSize + elementBytes.f32 : headSize
}

export type ModelOptions = {
  /** Of the weights in memory; activations are f32. */
  dtype: 'float32' | 'bfloat16'
  /** Of the KV cache; that of the weights if absent. */
  kvCacheDtype?: KvCacheDType
  /** Of the matrices that are multiplied; the rest keeps `dtype`. */
  quantization?: 'int8' | null
  /** The most tokens a step may have (max_num_batched_tokens). */
  maxTokens: number
  /** Rows whose logits are in memory at the same time; a step that wants more takes them in turn. */
  maxLogits: number
  /** The longest sequence (max_model_len); the checkpoint's own limit if absent. */
  maxPositions?: number
}

export type Model = {
  readonly config: ModelConfig
  readonly weightBytes: number
  /** Appends one step to `commands`; `take` appends what is to be done with the logits, f32. In each layer K and V of all
   * rows are written before any row attends: sequences of one step may share what it fills. */
  forward(commands: Commands, batch: Batch, kv: KvLayer[], take: TakeLogits): void
  /** Of all layers together. */
  kvBytesPerBlock(blockSize: number): number
  allocateKv(blocks: number, blockSize: number): KvLayer[]
  free(): void
}

export async function createModel(
  device: Device,
  config: ModelConfig,
  reader: WeightReader,
  options: ModelOptions,
): Promise<Model> {
  const { dtype, kvCacheDtype = dtype, quantization } = options
  const weights = new Weights(device, { whole: names[dtype], multiplied: quantization ? 'i8' : names[dtype] }, reader)
  const scratch = new Scratch(device, options.maxTokens)
  const positions = options.maxPositions ?? config.maxPositions
  const cosSin = device.upload(cosSinTable(config.rope, positions), [positions, config.rope.size])
  const free = () => {
    for (const memory of [weights, scratch, cosSin]) memory.free()
  }
  try {
    const compute = architectures[config.architecture](weights, {
      config,
      scratch,
      cosSin,
      maxLogits: options.maxLogits,
    })
    await weights.finish()
    const { layers, heads } = config
    return {
      config,
      weightBytes: weights.bytes,
      forward(commands, batch, kv, take) {
        assert(batch.tokens <= options.maxTokens, 'the step is too large')
        compute({ commands, batch, take }, kv)
      },
      kvBytesPerBlock: (blockSize) => layers * 2 * heads.kv * blockSize * kvHeadBytes(kvCacheDtype, heads.size),
      allocateKv(blocks, blockSize) {
        const shape = [blocks, heads.kv, blockSize, kvHeadElements(kvCacheDtype, heads.size)]
        const allocate = () => device.alloc(shape, names[kvCacheDtype])
        return Array.from({ length: layers }, () => ({ k: allocate(), v: allocate(), blockSize }))
      },
      free,
    }
  } catch (error) {
    free()
    throw error
  }
}

/** The tensors that a checkpoint of this configuration must hold: the layers are made, and what they ask for is noted. */
export function surveyTensors(config: ModelConfig): { name: string; shape: number[] }[] {
  const found: { name: string; shape: number[] }[] = []
  const nothing = {} as never // nothing is computed
  const device: Memory = { alloc: () => nothing, weight: () => nothing }
  const checkpoint: Checkpoint = {
    source: nothing,
    tensors: new Map(),
    find: (name, shape) => {
      found.push({ name, shape: [...shape] })
      return { name, file: '', dtype: 'BF16', shape: [...shape], begin: 0, end: 0 }
    },
    load: async () => {},
  }
  const shared = { config, scratch: new Scratch(device, 0), cosSin: nothing, maxLogits: 0 }
  architectures[config.architecture](new Weights(device, { whole: 'bf16', multiplied: 'bf16' }, checkpoint), shared)
  return found
}
