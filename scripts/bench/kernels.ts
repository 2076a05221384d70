// `npm run bench:kernels [-- linear|attention|step] [--threads N] [--isa NAME] [--model SHAPE]`: GFLOP/s and GB/s of the
// ops for the shapes of a model, beside what the machine can do at most (peak.cpp). `step` is a whole decoder without
// sampling: tokens per second of decode and prefill. The best of several runs counts; other load on the machine does not.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Device, type DType, type Isa } from '../../engine/native/device.ts'
import { Commands, type KvLayer } from '../../engine/native/ops.ts'
import type { Tensor, Weight } from '../../engine/native/tensor.ts'
import { buildKernels } from '../build.ts'

type Peak = { f32: number; bf16: number; read: number }

/** Shapes of SmolLM2-135M and Qwen2.5-0.5B. */
const models = {
  'smollm2-135m': { hidden: 576, ffn: 1536, layers: 30, vocabulary: 49152, heads: { query: 9, kv: 3, size: 64 } },
  'qwen2.5-0.5b': { hidden: 896, ffn: 4864, layers: 24, vocabulary: 151936, heads: { query: 14, kv: 2, size: 64 } },
}
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: '0' },
    isa: { type: 'string', default: 'auto' },
    model: { type: 'string', default: 'smollm2-135m' },
  },
})
if (!(values.model in models)) throw new Error(`--model must be of ${Object.keys(models)}, not ${values.model}`)
const model = models[values.model as keyof typeof models]
const blockSize = 16

function measurePeak(threads: number): Peak {
  const folder = mkdtempSync(join(tmpdir(), 'pagestream-peak-'))
  try {
    const source = fileURLToPath(new URL('peak.cpp', import.meta.url))
    execFileSync('g++', ['-O3', '-march=native', '-pthread', source, '-o', join(folder, 'peak')])
    return JSON.parse(execFileSync(join(folder, 'peak'), [String(threads)], { encoding: 'utf8' }))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** Seconds of the fastest of several runs, about 0.3 s in all. */
function best(run: () => void): number {
  run()
  let fastest = Number.POSITIVE_INFINITY
  for (const began = performance.now(); performance.now() - began < 300; ) {
    const start = performance.now()
    run()
    fastest = Math.min(fastest, performance.now() - start)
  }
  return fastest / 1000
}

function row(name: string, flops: number, bytes: number, seconds: number, peak: Peak): void {
  const gflops = flops / seconds / 1e9
  const rate = bytes / seconds / 1e9
  const share = (part: number) => `${Math.round(100 * part)}%`.padStart(4)
  const compute = share(gflops / peak.f32)
  console.log(
    `${name.padEnd(40)} ${(seconds * 1e6).toFixed(0).padStart(8)} us ${gflops.toFixed(1).padStart(8)} GFLOP/s ${compute}` +
      ` ${rate.toFixed(1).padStart(7)} GB/s ${share(rate / peak.read)}`,
  )
}

function randomWeight(device: Device, n: number, k: number, dtype: DType): Weight {
  const weight = device.weight(n, k, dtype)
  const values = Float32Array.from({ length: k }, (_, i) => Math.sin(i) / Math.sqrt(k))
  for (let i = 0; i < n; i++) weight.load(i, 1, new Uint8Array(values.buffer), 'f32')
  return weight
}

function benchLinear(device: Device, peak: Peak): void {
  for (const dtype of ['i8', 'bf16', 'f32'] as const) {
    const { hidden, ffn, vocabulary, heads } = model
    for (const [n, k] of [
      [(heads.query + 2 * heads.kv) * heads.size, hidden],
      [2 * ffn, hidden],
      [hidden, ffn],
      [vocabulary, hidden],
    ] as const) {
      const weight = randomWeight(device, n, k, dtype)
      for (const tokens of n > 40000 ? [1, 8] : [1, 4, 16, 64, 512]) {
        const x = device.alloc([tokens, k], 'f32')
        const y = device.alloc([tokens, n], 'f32')
        const commands = new Commands(device)
        commands.linear(y, x, weight, null, tokens)
        const seconds = best(() => commands.run())
        row(`linear ${dtype} ${tokens} x ${k} -> ${n}`, 2 * tokens * n * k, weight.bytes, seconds, peak)
        x.free()
        y.free()
      }
      weight.free()
    }
  }
}

function makeCache(device: Device, blocks: number, dtype: DType): KvLayer {
  const { kv, size } = model.heads
  const shape = [blocks, kv, blockSize, size]
  return { k: device.alloc(shape, dtype), v: device.alloc(shape, dtype), blockSize }
}

/** `count` sequences, each with `past` tokens in the cache and `tokens` new ones. */
function sequences(device: Device, count: number, past: number, tokens: number) {
  const stride = Math.ceil((past + tokens) / blockSize)
  const upload = (length: number, value: (i: number) => number) =>
    device.upload(Int32Array.from({ length }, (_, i) => value(i)))
  const position = (i: number) => past + (i % tokens)
  return {
    blocks: count * stride,
    positions: upload(count * tokens, position),
    slots: upload(count * tokens, (i) => Math.floor(i / tokens) * stride * blockSize + position(i)),
    last: upload(count, (i) => (i + 1) * tokens - 1),
    batch: {
      queryStart: upload(count + 1, (i) => i * tokens),
      kvLength: upload(count, () => past + tokens),
      blockTable: upload(count * stride, (i) => i),
      tableStride: stride,
      sequences: count,
    },
  }
}

const attentionOptions = { scale: 1 / Math.sqrt(model.heads.size), softcap: 0, window: 0 }

function benchAttention(device: Device, peak: Peak): void {
  const { query, kv, size } = model.heads
  for (const [past, tokens] of [
    [256, 1],
    [4096, 1],
    [0, 512],
    [1536, 512],
  ] as const) {
    const { batch, blocks } = sequences(device, 1, past, tokens)
    const qkv = device.alloc([tokens, (query + 2 * kv) * size], 'f32')
    const out = device.alloc([tokens, query * size], 'f32')
    const commands = new Commands(device)
    commands.attention(out, qkv, makeCache(device, blocks, 'bf16'), batch, model.heads, attentionOptions)
    const pairs = tokens * past + (tokens * (tokens + 1)) / 2
    const bytes = 2 * (past + tokens) * kv * size * 2
    const seconds = best(() => commands.run())
    row(`attention bf16 cache, ${tokens} after ${past}`, 4 * pairs * query * size, bytes, seconds, peak)
  }
}

/** Sequences, tokens of each in the cache, and new ones: decode of one and of 16, prefill. */
const steps = [
  [1, 128, 1],
  [16, 256, 1],
  [1, 0, 512],
] as const
const stepBlocks = Math.max(...steps.map(([count, past, each]) => count * Math.ceil((past + each) / blockSize)))

function benchStep(device: Device, dtype: DType): void {
  const { hidden, ffn, layers, vocabulary, heads } = model
  const width = (heads.query + 2 * heads.kv) * heads.size
  const head = randomWeight(device, vocabulary, hidden, dtype)
  const stack = Array.from({ length: layers }, () => ({
    qkv: randomWeight(device, width, hidden, dtype),
    o: randomWeight(device, hidden, hidden, dtype),
    gateUp: randomWeight(device, 2 * ffn, hidden, dtype),
    down: randomWeight(device, hidden, ffn, dtype),
    cache: makeCache(device, stepBlocks, dtype === 'f32' ? 'f32' : 'bf16'),
  }))
  const norm = device.upload(new Float32Array(hidden).fill(1))
  const cosSin = device.alloc([1024, heads.size], 'f32')
  for (const [count, past, each] of steps) {
    const { batch, positions, slots, last: lastRows } = sequences(device, count, past, each)
    const tokens = count * each
    const take = (columns: number) => device.alloc([tokens, columns], 'f32')
    const [sum, x, qkv, mixed, gateUp, gated] = [hidden, hidden, width, hidden, 2 * ffn, ffn].map(take) as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ]
    const [last, logits] = [device.alloc([count, hidden], 'f32'), device.alloc([count, vocabulary], 'f32')]
    const commands = new Commands(device)
    commands.embedding(sum, head, positions, tokens)
    for (const { qkv: qkvWeight, o, gateUp: gateUpWeight, down, cache } of stack) {
      commands.rmsNorm(x, sum, null, norm, tokens, 1e-5)
      commands.linear(qkv, x, qkvWeight, null, tokens)
      commands.rope(qkv, positions, cosSin, tokens, heads, { size: heads.size, interleaved: false })
      commands.kvWrite(cache, qkv, slots, tokens, heads)
      commands.attention(mixed, qkv, cache, batch, heads, attentionOptions)
      commands.linear(x, mixed, o, null, tokens)
      commands.rmsNorm(mixed, x, sum, norm, tokens, 1e-5)
      commands.linear(gateUp, mixed, gateUpWeight, null, tokens)
      commands.gatedActivation(gated, gateUp, tokens, 'silu')
      commands.linear(x, gated, down, null, tokens)
      commands.add(sum, x, tokens * hidden)
    }
    commands.gatherRows(last, sum, lastRows, count)
    commands.linear(logits, last, head, null, count)
    const seconds = best(() => commands.run())
    console.log(`step ${dtype}: ${count} x ${each} tokens after ${past}: ${(tokens / seconds).toFixed(0)} tokens/s`)
  }
}

const wants = (name: string) => positionals.length === 0 || positionals.includes(name)
await buildKernels({ log: console.log })
const threads = Number(values.threads) || availableParallelism()
const peak = measurePeak(threads)
console.log(`peak of ${threads} threads: f32 ${peak.f32} GFLOP/s, bf16 ${peak.bf16} GFLOP/s, reading ${peak.read} GB/s`)
const device = Device.open({ backend: 'cpu', threads, isa: values.isa as Isa })
console.log(`${device.info.name}, ${device.info.isa}`)
if (wants('linear')) benchLinear(device, peak)
if (wants('attention')) benchAttention(device, peak)
if (wants('step')) for (const dtype of ['i8', 'bf16', 'f32'] as const) benchStep(device, dtype)
device.close()
