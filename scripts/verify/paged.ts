// Runs token sequences through a model and its paged KV cache the way the engine does, but with nothing else around:
// what `pagestream verify` and the model tests compare. Blocks are handed out in descending order and shared by no two
// sequences, so that a kernel that ignores the block table cannot pass.
import type { Model } from '../../engine/models/index.ts'
import type { Device } from '../../engine/native/device.ts'
import { Commands, type KvLayer } from '../../engine/native/ops.ts'
import type { Tensor } from '../../engine/native/tensor.ts'

/** Called once per position, in ascending order per sequence; `logits` is good until it returns. */
export type Visit = (sequence: number, position: number, logits: Float32Array) => void

type Sequence = { tokens: number[]; done: number; end: number; blocks: number[] }

export class PagedRunner {
  readonly #device: Device
  readonly #model: Model
  readonly #commands: Commands
  readonly #kv: KvLayer[]
  readonly #blockSize: number
  readonly #blocks: number
  readonly #memory = new Map<string, Tensor>()

  /** `blocks` for all sequences that run together. */
  constructor(device: Device, model: Model, blocks: number, blockSize: number) {
    this.#device = device
    this.#model = model
    this.#commands = new Commands(device)
    this.#blocks = blocks
    this.#blockSize = blockSize
    this.#kv = model.allocateKv(blocks, blockSize)
  }

  /**
   * Runs all prompts together, at most `chunk` tokens of each per step, then steps[i] greedy tokens of each. Returns
   * the greedy tokens; every position's logits are shown to `visit`.
   */
  greedy(prompts: readonly number[][], steps: readonly number[], chunk: number, visit: Visit): number[][] {
    const sequences = this.#place(prompts, steps)
    for (;;) {
      const running = sequences.filter((sequence) => sequence.done < sequence.end)
      if (running.length === 0) break
      const rows = running.map((sequence) => Math.min(chunk, sequence.tokens.length - sequence.done))
      const logits = this.#step(running, rows)
      let row = 0
      for (const [i, sequence] of running.entries()) {
        for (let k = 0; k < rows[i]!; k++) {
          const here = logits(row++)
          visit(sequences.indexOf(sequence), sequence.done++, here)
          if (sequence.done === sequence.tokens.length) sequence.tokens.push(argmax(here))
        }
      }
    }
    return sequences.map((sequence, i) => sequence.tokens.slice(prompts[i]!.length))
  }

  free(): void {
    for (const { k, v } of this.#kv) for (const cache of [k, v]) cache.free()
    for (const tensor of this.#memory.values()) tensor.free()
  }

  /** The last greedy token is taken from the logits and never fed, so it has no position. */
  #place(prompts: readonly number[][], steps: readonly number[]): Sequence[] {
    let next = this.#blocks
    return prompts.map((prompt, i) => {
      const end = prompt.length + steps[i]! - 1
      const blocks = Array.from({ length: Math.ceil(end / this.#blockSize) }, () => --next)
      if (next < 0) throw new Error(`the sequences need more than ${this.#blocks} blocks`)
      return { tokens: [...prompt], done: 0, end, blocks }
    })
  }

  /** rows[i] tokens of each sequence; gives the logits of each row of the step. */
  #step(running: Sequence[], rows: number[]): (row: number) => Float32Array {
    const stride = Math.max(...running.map(({ blocks }) => blocks.length))
    const each = <Value>(give: (sequence: Sequence, position: number) => Value): Value[] =>
      running.flatMap((sequence, i) => Array.from({ length: rows[i]! }, (_, k) => give(sequence, sequence.done + k)))
    const starts = [0]
    for (const count of rows) starts.push(starts.at(-1)! + count)
    const tokens = starts.at(-1)!
    const batch = {
      tokens,
      sequences: running.length,
      logitCount: tokens,
      tableStride: stride,
      ids: this.#i32(
        'ids',
        each((sequence, position) => sequence.tokens[position]!),
      ),
      positions: this.#i32(
        'positions',
        each((_, position) => position),
      ),
      slots: this.#i32(
        'slots',
        each((sequence, position) => this.#slot(sequence, position)),
      ),
      queryStart: this.#i32('queryStart', starts),
      kvLength: this.#i32(
        'kvLength',
        running.map((sequence, i) => sequence.done + rows[i]!),
      ),
      blockTable: this.#i32(
        'blockTable',
        running.flatMap(({ blocks }) => padded(blocks, stride)),
      ),
      logitRows: this.#i32(
        'logitRows',
        Array.from({ length: tokens }, (_, row) => row),
      ),
    }
    this.#commands.reset()
    const taken: Tensor[] = []
    this.#model.forward(this.#commands, batch, this.#kv, (rows) => {
      taken.push(rows)
    })
    this.#commands.run()
    const all = taken[0]!.read() as Float32Array
    const width = this.#model.config.vocabularySize
    return (row) => all.subarray(row * width, (row + 1) * width)
  }

  #i32(name: string, values: number[]): Tensor {
    let tensor = this.#memory.get(name)
    if (!tensor || tensor.shape[0]! < values.length) {
      tensor?.free()
      tensor = this.#device.alloc([values.length], 'i32')
      this.#memory.set(name, tensor)
    }
    tensor.write(Int32Array.from(values))
    return tensor
  }

  #slot({ blocks }: Sequence, position: number): number {
    return blocks[Math.floor(position / this.#blockSize)]! * this.#blockSize + (position % this.#blockSize)
  }
}

function padded(blocks: number[], stride: number): number[] {
  return [...blocks, ...Array<number>(stride - blocks.length).fill(0)]
}

/** Ties to the lowest id, as in the kernels. */
export function argmax(values: Float32Array | Float64Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}
