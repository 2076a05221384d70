// Sequences of a step -> the flat arrays that kernels want. The model reads a Batch and never sees a sequence.
import type { Tensor } from './native/tensor.ts'

/** One step: the tokens of all its sequences laid end to end. All tensors are i32 and may be larger than used. */
export type Batch = {
  tokens: number
  sequences: number
  logitCount: number
  tableStride: number
  /** [tokens]: token id, position in its sequence, KV slot (block * blockSize + offset). */
  ids: Tensor
  positions: Tensor
  slots: Tensor
  /** [sequences + 1]: row where each sequence begins. */
  queryStart: Tensor
  /** [sequences]: positions in the cache once this step is written. */
  kvLength: Tensor
  /** [sequences, tableStride] */
  blockTable: Tensor
  /** [logitCount]: rows whose logits are wanted. */
  logitRows: Tensor
}
