// How much a model can hold on this machine: KV blocks and the longest sequence. Decided from config.json and the
// memory that is free, before a weight is read, so that a model that cannot fit is refused at once.
import type { ModelConfig } from './models/config.ts'
import { ModelError } from './weights/source.ts'

export type Capacity = {
  blocks: number
  blockSize: number
  /** blocks * blockSize: no request may hold more. */
  kvTokens: number
  maxModelLength: number
}

export type CapacityInput = {
  model: Pick<ModelConfig, 'layers' | 'heads' | 'maxPositions'>
  options: {
    blockSize: number
    maxNumSeqs: number
    maxModelLen: number | null
    kvCacheMemoryBytes: number | null
    numGpuBlocksOverride: number | null
  }
  /** Of k or v of one token and head. */
  kvHeadBytes: number
  freeBytes: number
  /** What the weights will take of the free memory. */
  weightBytes: number
}

const GiB = 2 ** 30
const DEFAULT_SHARE = 0.4
const DEFAULT_LIMIT = 4 * GiB

/** @throws ModelError that names the flag to change */
export function planCapacity(input: CapacityInput): Capacity {
  const { model, options, freeBytes, weightBytes } = input
  if (weightBytes > freeBytes) {
    throw new ModelError(`the weights need ${inGiB(weightBytes)} of memory, and ${inGiB(freeBytes)} are free`)
  }
  const { blockSize } = options
  const bytesPerBlock = model.layers * 2 * model.heads.kv * blockSize * input.kvHeadBytes
  const budget = options.kvCacheMemoryBytes ?? Math.min(DEFAULT_LIMIT, DEFAULT_SHARE * (freeBytes - weightBytes))
  const affordable = options.numGpuBlocksOverride ?? Math.floor(budget / bytesPerBlock)
  if (options.kvCacheMemoryBytes !== null && budget > freeBytes - weightBytes) {
    throw new ModelError(
      `--kv-cache-memory-bytes asks for ${inGiB(budget)}, and ${inGiB(freeBytes - weightBytes)} are free beside the weights`,
    )
  }
  if (affordable < 1) {
    throw new ModelError(
      `the KV cache gets ${inGiB(budget)}, but one block of ${blockSize} tokens needs ${inGiB(bytesPerBlock)}: raise --kv-cache-memory-bytes`,
    )
  }
  const maxModelLength = longestSequence(input, affordable * blockSize, bytesPerBlock)
  // A small model could fill gigabytes with more blocks than its sequences can ever use: what all of them need, and as
  // much again for prefixes kept after their sequences ended, is enough.
  const useful = 2 * options.maxNumSeqs * Math.ceil(maxModelLength / blockSize)
  const explicit = options.numGpuBlocksOverride ?? options.kvCacheMemoryBytes
  const blocks = explicit === null ? Math.min(affordable, useful) : affordable
  return { blocks, blockSize, kvTokens: blocks * blockSize, maxModelLength }
}

function longestSequence({ model, options }: CapacityInput, kvTokens: number, bytesPerBlock: number): number {
  const wanted = options.maxModelLen
  if (wanted === null) return Math.min(model.maxPositions, kvTokens)
  if (wanted > model.maxPositions) {
    throw new ModelError(`--max-model-len ${wanted} is more than the ${model.maxPositions} positions the model knows`)
  }
  if (wanted > kvTokens) {
    const needed = Math.ceil(wanted / options.blockSize) * bytesPerBlock
    throw new ModelError(
      `--max-model-len ${wanted} needs ${inGiB(needed)} of KV cache, which holds ${kvTokens} tokens: lower it or raise --kv-cache-memory-bytes to ${needed}`,
    )
  }
  return wanted
}

function inGiB(bytes: number): string {
  return bytes >= 0.01 * GiB ? `${(bytes / GiB).toFixed(2)} GiB` : `${Math.ceil(bytes)} bytes`
}
