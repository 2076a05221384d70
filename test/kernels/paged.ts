// A paged sequence for the attention tests: q, k and v of all its positions, computed through the cache in pieces of
// any size and through any block table, and the same by a naive float64 loop over the whole sequence.
import type { Device } from '../../engine/native/device.ts'
import type { Heads, KvLayer } from '../../engine/native/ops.ts'
import { numbers, poisoned, quantised, run, toBf16 } from './devices.ts'

export type KvDType = 'f32' | 'f16' | 'bf16' | 'i8'
export type Layout = { heads: Heads; length: number; blockSize: number; kv: KvDType; seed?: number }
export type Options = { scale: number; softcap: number; window: number }

export const plainOptions: Options = { scale: 0.3, softcap: 0, window: 0 }
const widthOf = ({ query, kv, size }: Heads) => (query + 2 * kv) * size
const qkvOf = ({ heads, length, seed = 1 }: Layout) => numbers(length * widthOf(heads), seed, 2)

/** What the cache keeps of one head of one token. */
const kept: Record<KvDType, (head: Float32Array) => Iterable<number>> = {
  f32: (head) => head,
  f16: (head) => Float16Array.from(head),
  bf16: (head) => head.map(toBf16),
  i8: (head) => quantised(head, head.length),
}

export function allocateCache(device: Device, { heads, blockSize, kv }: Layout, blocks: number): KvLayer {
  const shape = [blocks, heads.kv, blockSize, heads.size + (kv === 'i8' ? 4 : 0)]
  return { k: device.alloc(shape, kv), v: device.alloc(shape, kv), blockSize }
}

/** Chunks are the numbers of tokens of successive steps; order is the block table. Output of all rows, in order. */
export function attend(
  device: Device,
  layout: Layout,
  options: Options,
  chunks: number[],
  order?: number[],
): Float32Array {
  const { heads, length, blockSize } = layout
  const qkv = qkvOf(layout)
  const table = order ?? Array.from({ length: Math.ceil(length / blockSize) }, (_, i) => i)
  const cache = allocateCache(device, layout, Math.max(...table) + 1)
  const outputs = new Float32Array(length * heads.query * heads.size)
  let done = 0
  for (const tokens of chunks) {
    const rows = device.upload(qkv.slice(done * widthOf(heads), (done + tokens) * widthOf(heads)))
    const slots = Int32Array.from({ length: tokens }, (_, i) => {
      const position = done + i
      return table[Math.floor(position / blockSize)]! * blockSize + (position % blockSize)
    })
    const out = poisoned(device, [tokens, heads.query * heads.size])
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
    outputs.set(out.read() as Float32Array, done * heads.query * heads.size)
    done += tokens
  }
  return outputs
}

export function exactAttention(layout: Layout, { scale, softcap, window }: Options): Float64Array {
  const { heads, length, kv } = layout
  const { query, size } = heads
  const width = widthOf(heads)
  const qkv = qkvOf(layout)
  const cached = Float64Array.from(qkv)
  for (let i = 0; i < qkv.length; i += size) cached.set([...kept[kv](qkv.subarray(i, i + size))], i)
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
