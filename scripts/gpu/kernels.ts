// `node scripts/gpu/kernels.ts`: the linear and attention kernels of a GPU at the shapes of Llama-3.1-8B, against the
// machine's limits, which are given: --bandwidth 4.3 (TB/s) --compute 790 (TFLOP/s of bf16). Prints a table; --json FILE
// writes it. --backend emulated --tiny runs the same code at toy shapes without a GPU, to test this file.
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { Device } from '../../engine/native/device.ts'
import type { Backend } from '../../engine/native/location.ts'
import { Commands, type KvLayer } from '../../engine/native/ops.ts'

const { values } = parseArgs({
  options: {
    backend: { type: 'string', default: 'cuda' },
    bandwidth: { type: 'string', default: '4.3' },
    compute: { type: 'string', default: '790' },
    json: { type: 'string' },
    tiny: { type: 'boolean', default: false },
  },
})
const scale = values.tiny ? 64 : 1
const [warmups, repeats] = values.tiny ? [0, 1] : [3, 20]
const heads = values.tiny ? { query: 4, kv: 2, size: 64 } : { query: 32, kv: 8, size: 128 }
const blockSize = 16
const hidden = 4096 / scale

type Row = { what: string; us: number; gbps: number; tflops: number; ofLimit: number }
const rows: Row[] = []

/** Best of the repeats: launches are enqueued one by one, so the host's share is in short ones. */
function measure(
  device: Device,
  what: string,
  bytes: number,
  flops: number,
  append: (commands: Commands) => void,
): void {
  const commands = new Commands(device)
  append(commands)
  const sync = () => device.library.call('ps_stream_sync', device.context, 0)
  let best = Number.POSITIVE_INFINITY
  for (let i = 0; i < warmups + repeats; i++) {
    sync()
    const began = performance.now()
    commands.run()
    sync()
    if (i >= warmups) best = Math.min(best, performance.now() - began)
  }
  const [gbps, tflops] = [bytes / best / 1e6, flops / best / 1e9]
  const ofLimit = Math.max(gbps / 1000 / Number(values.bandwidth), tflops / Number(values.compute))
  rows.push({ what, us: 1000 * best, gbps, tflops, ofLimit })
}

function linear(device: Device, label: string): void {
  for (const [n, k] of [
    [6144 / scale, hidden],
    [28672 / scale, hidden],
    [hidden, 14336 / scale],
  ] as const) {
    const weight = device.weight(n, k, 'bf16')
    for (const tokens of values.tiny ? [1, 20] : [1, 8, 64, 256, 8192]) {
      const [x, y] = [device.alloc([tokens, k], 'bf16'), device.alloc([tokens, n], 'bf16')]
      const bytes = 2 * (n * k + tokens * (n + k))
      measure(device, `${label} linear [${n}, ${k}] x ${tokens}`, bytes, 2 * n * k * tokens, (commands) =>
        commands.linear(y, x, weight, null, tokens),
      )
      x.free()
      y.free()
    }
    weight.free()
  }
}

/** Every sequence with `length` positions, of which the last `queries` are computed. */
function attention(device: Device, sequences: number, length: number, queries: number): void {
  const perSequence = Math.ceil(length / blockSize)
  const shape = [sequences * perSequence, heads.kv, blockSize, heads.size]
  const cache: KvLayer = { k: device.alloc(shape, 'bf16'), v: device.alloc(shape, 'bf16'), blockSize }
  const tokens = sequences * queries
  const qkv = device.alloc([tokens, (heads.query + 2 * heads.kv) * heads.size], 'bf16')
  const out = device.alloc([tokens, heads.query * heads.size], 'bf16')
  const batch = {
    queryStart: device.upload(Int32Array.from({ length: sequences + 1 }, (_, i) => i * queries)),
    kvLength: device.upload(new Int32Array(sequences).fill(length)),
    blockTable: device.upload(Int32Array.from({ length: sequences * perSequence }, (_, i) => i)),
    tableStride: perSequence,
    sequences,
  }
  const seen = queries * (length - (queries - 1) / 2)
  const bytes = sequences * 4 * length * heads.kv * heads.size
  const flops = sequences * 4 * seen * heads.query * heads.size
  measure(device, `attention ${sequences} x ${queries} of ${length}`, bytes, flops, (commands) =>
    commands.attention(out, qkv, cache, batch, heads, { scale: 0.088, softcap: 0, window: 0 }),
  )
  for (const tensor of [cache.k, cache.v, qkv, out]) tensor.free()
}

for (const deterministic of [false, true]) {
  const device = Device.open({ backend: values.backend as Backend, threads: 0, deterministic })
  console.log(`${device.info.name}, ${device.info.numerics}`)
  linear(device, deterministic ? 'deterministic' : 'default')
  if (deterministic) {
    for (const [sequences, length, queries] of values.tiny
      ? [
          [2, 70, 1],
          [1, 70, 70],
        ]
      : [
          [1, 1024, 1],
          [64, 1024, 1],
          [64, 4096, 1],
          [256, 1024, 1],
          [1, 8192, 8192],
          [4, 8192, 512],
        ]) {
      attention(device, sequences!, length!, queries!)
    }
  }
  device.close()
}
console.log(
  `${'op'.padEnd(48)}${'us'.padStart(10)}${'GB/s'.padStart(9)}${'TFLOP/s'.padStart(9)}${'of limit'.padStart(10)}`,
)
for (const { what, us, gbps, tflops, ofLimit } of rows) {
  const figures = [us.toFixed(1).padStart(10), gbps.toFixed(0).padStart(9), tflops.toFixed(1).padStart(9)]
  console.log(`${what.padEnd(48)}${figures.join('')}${`${(100 * ofLimit).toFixed(0)}%`.padStart(10)}`)
}
if (values.json) writeFileSync(values.json, JSON.stringify(rows, null, 1))
