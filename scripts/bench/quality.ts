// `node scripts/bench/quality.ts MODEL TEXT`: what int8 costs in quality. The mean Kullback-Leibler divergence of the
// next token's distribution from that with bfloat16, over the first 4,096 tokens of a text in pieces of 256, and how
// often the likeliest token is the same.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createModel, type ModelOptions } from '../../engine/models/index.ts'
import { Device } from '../../engine/native/device.ts'
import { readModelFiles } from '../../engine/weights/files.ts'
import { openFolder } from '../../engine/weights/folder.ts'
import { WeightReader } from '../../engine/weights/load.ts'
import { Encoder } from '../../gateway/prompt/tokenizer.ts'
import { buildKernels } from '../build.ts'
import { argmax, PagedRunner } from '../verify/paged.ts'

const [pieceTokens, mostTokens, blockSize] = [256, 4096, 16]

type Precision = Pick<ModelOptions, 'quantization' | 'kvCacheDtype'>
const precisions: Record<string, Precision> = {
  'int8 weights': { quantization: 'int8' },
  'int8 KV cache': { kvCacheDtype: 'int8_per_token_head' },
  'int8 both': { quantization: 'int8', kvCacheDtype: 'int8_per_token_head' },
}

/** Log-probabilities of every position of every piece, one after the other. */
async function logprobs(device: Device, folder: string, pieces: number[][], precision: Precision) {
  const source = await openFolder(folder)
  const files = await readModelFiles(source)
  const sizes = { maxTokens: pieceTokens, maxLogits: pieceTokens, maxPositions: pieceTokens }
  const reader = new WeightReader(source, files.tensors)
  const model = await createModel(device, files.config, reader, { dtype: 'bfloat16', ...precision, ...sizes })
  const runner = new PagedRunner(device, model, pieceTokens / blockSize, blockSize)
  const rows: Float64Array[] = []
  for (const piece of pieces) runner.greedy([piece], [1], Infinity, (_, __, logits) => rows.push(normalised(logits)))
  runner.free()
  model.free()
  await source.close()
  return rows
}

function normalised(logits: Float32Array): Float64Array {
  const max = logits.reduce((most, value) => Math.max(most, value), -Infinity)
  const total = Math.log(logits.reduce((sum, value) => sum + Math.exp(value - max), 0)) + max
  return Float64Array.from(logits, (value) => value - total)
}

function divergence(p: Float64Array, q: Float64Array): number {
  return p.reduce((sum, logp, i) => sum + Math.exp(logp) * (logp - q[i]!), 0)
}

const [folder, text] = process.argv.slice(2)
if (!folder || !text) throw new Error('say: node scripts/bench/quality.ts MODEL_FOLDER TEXT_FILE')
await buildKernels({ log: console.log })
const encoder = new Encoder(readFileSync(join(folder, 'tokenizer.json'), 'utf8'))
const ids = [...(await encoder.encode(readFileSync(text, 'utf8'), true))].slice(0, mostTokens)
const pieces = Array.from({ length: Math.floor(ids.length / pieceTokens) }, (_, i) =>
  ids.slice(i * pieceTokens, (i + 1) * pieceTokens),
)
const device = Device.open({ backend: 'cpu', threads: 0 })
const base = await logprobs(device, folder, pieces, {})
for (const [name, precision] of Object.entries(precisions)) {
  const other = await logprobs(device, folder, pieces, precision)
  const mean = base.reduce((sum, row, i) => sum + divergence(row, other[i]!), 0) / base.length
  const same = base.filter((row, i) => argmax(row) === argmax(other[i]!)).length / base.length
  console.log(
    `${name}: KL ${mean.toExponential(2)}, same token ${(100 * same).toFixed(2)} % (${base.length} positions)`,
  )
}
device.close()
