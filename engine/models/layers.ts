// The layers that models are composed of. A layer is made once, taking its weights by the checkpoint's own names, and
// called once per step: it appends kernels to a command list and returns the tensor they will fill. Tensors are
// [tokens, columns], all sequences of the step laid end to end; `batch` knows the seams.
//
// Activations are scratch memory that layers share by name: a result is good until a layer is called that writes to the
// same name. Nothing is allocated during a step.
import type { Commands, KvLayer } from '../native/ops.ts'
import type { Tensor, Weight } from '../native/tensor.ts'
import type { ModelConfig } from './config.ts'
import type { Memory, Parts, Weights } from './weights.ts'

/** What one step computes, packed for the kernels. All tensors are i32 and may be longer than what counts. */
export type Batch = {
  tokens: number
  sequences: number
  /** Columns of blockTable. */
  tableStride: number
  logitCount: number
  /** [tokens]: token ids, their positions, and the cache slots that their K and V go to. */
  ids: Tensor
  positions: Tensor
  slots: Tensor
  /** [sequences + 1] first row of each; [sequences] positions after this step; [sequences, tableStride] blocks. */
  queryStart: Tensor
  kvLength: Tensor
  blockTable: Tensor
  /** [logitCount]: the rows whose logits are wanted. */
  logitRows: Tensor
}

/** Gets the logits [some rows, vocabulary] of logitRows[first], logitRows[first + 1], ..., good until its next call. */
export type TakeLogits = (logits: Tensor, first: number) => void

export type Step = { commands: Commands; batch: Batch; take: TakeLogits }

/** What all layers of a model share. cosSin: [positions, rotary size], see rope.ts */
export type Shared = { config: ModelConfig; scratch: Scratch; cosSin: Tensor; maxLogits: number }

/** Activation memory, by name: the same tensor for every layer that asks for it. */
export class Scratch {
  readonly #device: Memory
  readonly #maxTokens: number
  readonly #tensors = new Map<string, Tensor>()

  constructor(device: Memory, maxTokens: number) {
    this.#device = device
    this.#maxTokens = maxTokens
  }

  take(name: string, columns: number, rows = this.#maxTokens): Tensor {
    const tensor = this.#tensors.get(name) ?? this.#device.alloc([rows, columns], 'f32')
    this.#tensors.set(name, tensor)
    return tensor
  }

  free(): void {
    for (const tensor of this.#tensors.values()) tensor.free()
    this.#tensors.clear()
  }
}

/** The residual stream: `sum`, plus what the last sublayer gave, which the next norm adds in passing. */
export type Residual = { sum: Tensor; pending: Tensor | null }

/** y = x W^T + b, with the matrices of several names below each other in W. */
function linear(weights: Weights, parts: Parts, k: number, hasBias: boolean) {
  const weight = weights.matrix(parts, k)
  const bias = hasBias ? weights.vector(parts, 'bias') : null
  return (commands: Commands, out: Tensor, x: Tensor, tokens: number): Tensor => {
    commands.linear(out, x, weight, bias, tokens)
    return out
  }
}

export function embedding(weights: Weights, { config, scratch }: Shared) {
  const weight = weights.matrix({ '': config.vocabularySize }, config.hiddenSize)
  const sum = scratch.take('residual', config.hiddenSize)
  const embed = ({ commands, batch }: Step): Residual => {
    commands.embedding(sum, weight, batch.ids, batch.tokens)
    return { sum, pending: null }
  }
  return { weight, embed }
}

/** arXiv 1910.07467 */
export function rmsNorm(weights: Weights, { config, scratch }: Shared) {
  const weight = weights.vector({ '': config.hiddenSize }, 'weight')
  const out = scratch.take('normed', config.hiddenSize)
  return (x: Residual, { commands, batch }: Step): Tensor => {
    if (x.pending) commands.rmsNorm(out, x.pending, x.sum, weight, batch.tokens, config.normEps)
    else commands.rmsNorm(out, x.sum, null, weight, batch.tokens, config.normEps)
    x.pending = null
    return out
  }
}

/** Grouped-query attention over a paged cache: arXiv 2305.13245, 2309.06180. */
export function attention(weights: Weights, { config, scratch, cosSin }: Shared) {
  const { heads, hiddenSize } = config
  const width = heads.query * heads.size
  const kvWidth = heads.kv * heads.size
  const qkvProj = linear(weights, { q_proj: width, k_proj: kvWidth, v_proj: kvWidth }, hiddenSize, config.qkvBias)
  const oProj = linear(weights, { o_proj: hiddenSize }, width, config.outputBias)
  const qkv = scratch.take('qkv', width + 2 * kvWidth)
  const mixed = scratch.take('attention', width)
  const out = scratch.take('sublayer', hiddenSize)
  const rotary = { size: config.rope.size, interleaved: false }
  const options = { scale: 1 / Math.sqrt(heads.size), softcap: 0, window: config.window }

  return (x: Tensor, { commands, batch }: Step, kv: KvLayer): Tensor => {
    qkvProj(commands, qkv, x, batch.tokens)
    commands.rope(qkv, batch.positions, cosSin, batch.tokens, heads, rotary)
    commands.kvWrite(kv, qkv, batch.slots, batch.tokens, heads)
    commands.attention(mixed, qkv, kv, batch, heads, options)
    return oProj(commands, out, mixed, batch.tokens)
  }
}

/** down(act(gate(x)) * up(x)): arXiv 2002.05202 */
export function gatedMlp(weights: Weights, { config, scratch }: Shared) {
  const { hiddenSize, intermediateSize, activation, mlpBias } = config
  const gateUpProj = linear(weights, { gate_proj: intermediateSize, up_proj: intermediateSize }, hiddenSize, mlpBias)
  const downProj = linear(weights, { down_proj: hiddenSize }, intermediateSize, mlpBias)
  const gateUp = scratch.take('gate_up', 2 * intermediateSize)
  const gated = scratch.take('gated', intermediateSize)
  const out = scratch.take('sublayer', hiddenSize)

  return (x: Tensor, { commands, batch }: Step): Tensor => {
    gateUpProj(commands, gateUp, x, batch.tokens)
    commands.gatedActivation(gated, gateUp, batch.tokens, activation)
    return downProj(commands, out, gated, batch.tokens)
  }
}

/**
 * Logits of the rows that are wanted, maxLogits at a time, so that a vocabulary times all tokens of a step is never held.
 * A tied head is the embedding's matrix.
 */
export function head(weights: Weights, tied: Weight, { config, scratch, maxLogits }: Shared) {
  const { hiddenSize, vocabularySize } = config
  const weight = config.tiedEmbeddings ? tied : weights.matrix({ '': vocabularySize }, hiddenSize)
  if (config.tiedEmbeddings) weights.ignore('weight')
  const last = scratch.take('last', hiddenSize, maxLogits)
  const logits = scratch.take('logits', vocabularySize, maxLogits)

  return (x: Tensor, { commands, batch, take }: Step): void => {
    for (let first = 0; first < batch.logitCount; first += maxLogits) {
      const count = Math.min(maxLogits, batch.logitCount - first)
      commands.gatherRows(last, x, batch.logitRows.rows(first, first + count), count)
      commands.linear(logits, last, weight, null, count)
      take(logits.rows(0, count), first)
    }
  }
}
