// A paged sequence for the attention tests: q, k and v of all its positions, computed through the cache in pieces of
// any size and through any block table, and the same by a naive float64 loop over the whole sequence.
import type { Device } from '../../engine/native/device.ts'
import type { Heads } from '../../engine/native/ops.ts'
import { readBf16, uploadBf16 } from './bf16.ts'
import { numbers, poisoned, run, toBf16 } from './devices.ts'

export type KvDType = 'f32' | 'f16' | 'bf16'
export type Layout = {
  heads: Heads
  length: number
  blockSize: number
  kv: KvDType
  /** Of qkv and the output; f32 if absent. The CPU takes no other. */
  activations?: 'bf16'
}
export type Options = { scale: number; softcap: number; window: number }

export const plainOptions: Options = { scale: 0.3, softcap: 0, window: 0 }
const poison = ([rows, width]: number[]) => new Float32Array(rows! * width!).fill(Number.NaN)
const widthOf = ({ query, kv, size }: Heads) => (query + 2 * kv) * size
const qkvOf = ({ heads, length, activations }: Layout) => {
  const values = numbers(length * widthOf(heads), 1, 2)
  return activations === 'bf16' ? values.map(toBf16) : values
}

const rounders: Record<KvDType, (value: number) => number> = {
  f32: (value) => value,
  f16: (value) => Float16Array.of(value)[0]!,
  bf16: toBf16,
}

/** Chunks are the numbers of tokens of successive steps; order is the block table. Output of all rows, in order. */
export function attend(
  device: Device,
  layout: Layout,
  options: Options,
  chunks: number[],
  order?: number[],
): Float32Array {
  const { heads, length, blockSize, kv, activations } = layout
  const qkv = qkvOf(layout)
  const table = order ?? Array.from({ length: Math.ceil(length / blockSize) }, (_, i) => i)
  const shape = [Math.max(...table) + 1, heads.kv, blockSize, heads.size]
  const cache = { k: device.alloc(shape, kv), v: device.alloc(shape, kv), blockSize }
  const outputs = new Float32Array(length * heads.query * heads.size)
  let done = 0
  for (const tokens of chunks) {
    const input = qkv.slice(done * widthOf(heads), (done + tokens) * widthOf(heads))
    const rows = activations === 'bf16' ? uploadBf16(device, input, [input.length]) : device.upload(input)
    const slots = Int32Array.from({ length: tokens }, (_, i) => {
      const position = done + i
      return table[Math.floor(position / blockSize)]! * blockSize + (position % blockSize)
    })
    const shape = [tokens, heads.query * heads.size]
    const out = activations === 'bf16' ? uploadBf16(device, poison(shape), shape) : poisoned(device, shape)
    const batch = {
      queryStart: device.upload(Int32Array.of(0, tokens)),
      kvLength: device.upload(Int32Array.of(done + tokens)),
      blockTable: device.upload(Int32Array.from(table)),
      tableStride: table.length,
      sequences: 1,
    }
    run(device, (commands) => {
      commands.kvWrite(cache, rows, device.upload(slots), tokens, heads)
      commands.attention(out, rows, cache, batch, heads, options)
    })
    outputs.set(activations === 'bf16' ? readBf16(device, out) : out.read(), done * heads.query * heads.size)
    done += tokens
  }
  return outputs
}

export function exactAttention(layout: Layout, { scale, softcap, window }: Options): Float64Array {
  const { heads, length, kv } = layout
  const { query, size } = heads
  const width = widthOf(heads)
  const qkv = qkvOf(layout)
  const cached = qkv.map(rounders[kv])
  const out = new Float64Array(length * query * size)
  for (let row = 0; row < length; row++)
    for (let head = 0; head < query; head++) {
      const k = (query + Math.floor((head * heads.kv) / query)) * size
      const v = k + heads.kv * size
      const first = window > 0 ? Math.max(0, row + 1 - window) : 0
      const scores = Array.from({ length: row + 1 - first }, (_, i) => {
        let dot = 0
        for (let d = 0; d < size; d++) {
          dot += qkv[row * width + head * size + d]! * cached[(first + i) * width + k + d]!
        }
        return softcap > 0 ? softcap * Math.tanh((dot * scale) / softcap) : dot * scale
      })
      const most = Math.max(...scores)
      const weights = scores.map((score) => Math.exp(score - most))
      const total = weights.reduce((sum, weight) => sum + weight, 0)
      for (let d = 0; d < size; d++) {
        let sum = 0
        for (const [i, weight] of weights.entries()) sum += weight * cached[(first + i) * width + v + d]!
        out[(row * query + head) * size + d] = sum / total
      }
    }
  return out
}
