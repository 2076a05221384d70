// One typed method per op, appending a record to a command list; run() executes the list in one native call. The
// arguments are in the order of pagestream.h, whose prototypes say how each one is encoded. Shapes and formulas are
// documented there.
import type { Device } from './device.ts'
import { RecordWriter } from './records.ts'
import { dtypeCode, type Tensor, type Weight } from './tensor.ts'

/** Query and key-value heads, and the size of one. */
export type Heads = { query: number; kv: number; size: number }

/** The cache of one layer: blocks of `blockSize` tokens. */
export type KvLayer = { k: Tensor; v: Tensor; blockSize: number }

export type AttentionBatch = {
  queryStart: Tensor
  kvLength: Tensor
  blockTable: Tensor
  tableStride: number
  sequences: number
}

export type Activation = 'silu' | 'gelu_tanh' | 'gelu'
const activationCode: Record<Activation, number> = { silu: 0, gelu_tanh: 1, gelu: 2 }

export class Commands {
  readonly #device: Device
  readonly #records: RecordWriter

  constructor(device: Device) {
    this.#device = device
    this.#records = new RecordWriter(device.library.prototypes)
  }

  reset(): void {
    this.#records.reset()
  }

  /** May be called again for the same list. */
  run(): void {
    const bytes = this.#records.bytes
    this.#device.library.call('ps_exec', this.#device.context, 0, bytes, bytes.byteLength)
  }

  embedding(out: Tensor, weight: Weight, ids: Tensor, tokens: number): void {
    this.#add('ps_embedding', out.pointer, weight.handle, ids.pointer, tokens, dtypeCode[out.dtype])
  }

  rmsNorm(out: Tensor, x: Tensor, residual: Tensor | null, weight: Tensor, tokens: number, eps: number): void {
    const [width, dtype] = [weight.shape[0]!, dtypeCode[x.dtype]]
    this.#add('ps_rms_norm', out.pointer, x.pointer, address(residual), weight.pointer, tokens, width, eps, dtype)
  }

  linear(out: Tensor, x: Tensor, weight: Weight, bias: Tensor | null, tokens: number): void {
    const [ldx, ldy, dtype] = [x.shape.at(-1)!, out.shape.at(-1)!, dtypeCode[x.dtype]]
    this.#add('ps_linear', out.pointer, x.pointer, weight.handle, address(bias), tokens, ldx, ldy, dtype)
  }

  rope(
    qkv: Tensor,
    positions: Tensor,
    cosSin: Tensor,
    tokens: number,
    heads: Heads,
    rotary: { size: number; interleaved: boolean },
  ): void {
    const { size, interleaved } = rotary
    const { query, kv, size: head } = heads
    const table = [qkv.pointer, positions.pointer, cosSin.pointer, tokens, query, kv, head]
    table.push(size, interleaved ? 1 : 0, dtypeCode[qkv.dtype])
    this.#records.add('ps_rope', table)
  }

  kvWrite({ k, v, blockSize }: KvLayer, qkv: Tensor, slots: Tensor, tokens: number, heads: Heads): void {
    const { query, kv, size } = heads
    const tensors = [k.pointer, v.pointer, qkv.pointer, slots.pointer, tokens, query, kv, size]
    tensors.push(blockSize, dtypeCode[qkv.dtype], dtypeCode[k.dtype])
    this.#records.add('ps_kv_write', tensors)
  }

  attention(
    out: Tensor,
    qkv: Tensor,
    { k, v, blockSize }: KvLayer,
    { queryStart, kvLength, blockTable, tableStride, sequences }: AttentionBatch,
    heads: Heads,
    { scale, softcap, window }: { scale: number; softcap: number; window: number },
  ): void {
    const { query, kv, size } = heads
    const args = [out.pointer, qkv.pointer, k.pointer, v.pointer]
    args.push(queryStart.pointer, kvLength.pointer, blockTable.pointer, tableStride, sequences)
    args.push(query, kv, size, blockSize, scale, softcap, window, dtypeCode[qkv.dtype], dtypeCode[k.dtype])
    this.#records.add('ps_attention', args)
  }

  gatedActivation(out: Tensor, gateUp: Tensor, tokens: number, activation: Activation): void {
    const width = gateUp.shape.at(-1)! / 2
    const dtype = dtypeCode[out.dtype]
    this.#add('ps_gated_activation', out.pointer, gateUp.pointer, tokens, width, activationCode[activation], dtype)
  }

  add(x: Tensor, y: Tensor, elements: number): void {
    this.#add('ps_add', x.pointer, y.pointer, elements, dtypeCode[x.dtype])
  }

  gatherRows(out: Tensor, x: Tensor, rows: Tensor, count: number): void {
    this.#add('ps_gather_rows', out.pointer, x.pointer, rows.pointer, count, x.shape.at(-1)!, dtypeCode[x.dtype])
  }

  /** pairs: i32 [count, 2], from block, to block. */
  kvCopyBlocks({ k, v }: KvLayer, pairs: Tensor, count: number): void {
    this.#add('ps_kv_copy_blocks', k.pointer, v.pointer, pairs.pointer, count, k.bytes / k.shape[0]!)
  }

  logprobs(
    into: { topIds: Tensor; top: Tensor; logprob: Tensor; rank: Tensor },
    logits: Tensor,
    tokens: Tensor,
    rows: number,
    k: number,
  ): void {
    const out = [into.topIds, into.top, into.logprob, into.rank].map(({ pointer }) => pointer)
    this.#add('ps_logprobs', ...out, logits.pointer, tokens.pointer, rows, logits.shape.at(-1)!, k)
  }

  sample(
    out: Tensor,
    logits: Tensor,
    params: Tensor,
    history: Tensor,
    bias: { ids: Tensor; values: Tensor },
    allowed: { mask: Tensor; row: Tensor } | null,
    rows: number,
    workspace: Tensor,
  ): void {
    const tensors = [out, logits, params, history, bias.ids, bias.values].map(({ pointer }) => pointer)
    const masks = [allowed?.mask.pointer ?? 0, allowed?.row.pointer ?? 0]
    this.#add('ps_sample', ...tensors, ...masks, rows, logits.shape.at(-1)!, workspace.pointer)
  }

  #add(op: string, ...args: number[]): void {
    this.#records.add(op, args)
  }
}

function address(tensor: Tensor | null): number {
  return tensor?.pointer ?? 0
}
