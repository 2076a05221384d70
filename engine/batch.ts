// The slices of a step -> the flat arrays that kernels want. One host buffer, laid out once and refilled every step, and
// its twin on the device: packing allocates nothing and copies once.
import type { Batch } from './models/layers.ts'
import type { Device } from './native/device.ts'
import type { Tensor } from './native/tensor.ts'
import type { SchedulerOptions } from './scheduler/limits.ts'
import type { LogitRow } from './scheduler/rows.ts'
import type { Slice } from './scheduler/scheduler.ts'

type Limits = Pick<SchedulerOptions, 'blockSize' | 'maxModelLen' | 'maxNumSeqs' | 'maxNumBatchedTokens'>
type Field = { host: Int32Array; device: Tensor }
type Name = 'ids' | 'positions' | 'slots' | 'queryStart' | 'kvLength' | 'logitRows' | 'copies' | 'blockTable'

/** `copies`: i32 [copyCount, 2], blocks to be copied from and to before the step computes. */
export type PackedBatch = Batch & { copies: Tensor; copyCount: number }

/** Fields begin at a multiple of 64 bytes. */
const ALIGNMENT = 16

export class BatchPacker {
  readonly #blockSize: number
  readonly #device: Tensor
  readonly #host: Int32Array
  readonly #fields: Record<Name, Field>

  constructor(device: Device, { blockSize, maxModelLen, maxNumSeqs, maxNumBatchedTokens }: Limits) {
    this.#blockSize = blockSize
    let total = 0
    const take = (size: number) => {
      const from = total
      total += Math.ceil(size / ALIGNMENT) * ALIGNMENT
      return { from, to: from + size }
    }
    const ids = take(maxNumBatchedTokens)
    const positions = take(maxNumBatchedTokens)
    const slots = take(maxNumBatchedTokens)
    const queryStart = take(maxNumSeqs + 1)
    const kvLength = take(maxNumSeqs)
    const logitRows = take(maxNumBatchedTokens + maxNumSeqs)
    const copies = take(2 * maxNumSeqs)
    // Last, because a step fills only as much of it as its longest sequence needs, and copies no more.
    const blockTable = take(maxNumSeqs * Math.ceil(maxModelLen / blockSize))

    this.#host = new Int32Array(total)
    this.#device = device.alloc([total], 'i32')
    const field = ({ from, to }: { from: number; to: number }): Field => ({
      host: this.#host.subarray(from, to),
      device: this.#device.rows(from, to),
    })
    this.#fields = {
      ids: field(ids),
      positions: field(positions),
      slots: field(slots),
      queryStart: field(queryStart),
      kvLength: field(kvLength),
      logitRows: field(logitRows),
      copies: field(copies),
      blockTable: field(blockTable),
    }
  }

  /** Good until the next call. `wanted`: the rows whose logits are taken. */
  pack(slices: readonly Slice[], wanted: readonly LogitRow[], copied: readonly number[]): PackedBatch {
    const { ids, positions, slots, queryStart, kvLength, logitRows, copies, blockTable } = this.#fields
    const tableStride = slices.reduce((most, { sequence }) => Math.max(most, sequence.blocks.length), 0)
    let row = 0
    for (const [i, { sequence, begin, count, draft }] of slices.entries()) {
      const blocks = sequence.blocks.view
      ids.host.set(sequence.tokens.view.subarray(begin, begin + count), row)
      ids.host.set(draft, row + count - draft.length)
      queryStart.host[i] = row
      kvLength.host[i] = begin + count
      blockTable.host.set(blocks, i * tableStride)
      for (let position = begin; position < begin + count; position++, row++) {
        positions.host[row] = position
        const block = blocks[Math.floor(position / this.#blockSize)]!
        slots.host[row] = block * this.#blockSize + (position % this.#blockSize)
      }
    }
    for (const [i, each] of wanted.entries()) logitRows.host[i] = each.row
    queryStart.host[slices.length] = row
    copies.host.set(copied)
    const used = blockTable.host.byteOffset / 4 + slices.length * tableStride
    this.#device.write(this.#host.subarray(0, used))
    return {
      tokens: row,
      sequences: slices.length,
      logitCount: wanted.length,
      tableStride,
      ids: ids.device,
      positions: positions.device,
      slots: slots.device,
      queryStart: queryStart.device,
      kvLength: kvLength.device,
      logitRows: logitRows.device,
      copies: copies.device,
      copyCount: copied.length / 2,
      blockTable: blockTable.device,
    }
  }

  free(): void {
    this.#device.free()
  }
}
