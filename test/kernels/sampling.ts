// ps_sample as a function: rows of logits with their parameters in, tokens and kept sets out. Used by the sample tests.
import type { Device } from '../../engine/native/device.ts'
import { run } from './devices.ts'
import type { Draw } from './philox.ts'

export type Request = Partial<Draw> & {
  logits: ArrayLike<number>
  temperature?: number
  topP?: number
  minP?: number
  topK?: number
  repetition?: number
  frequency?: number
  presence?: number
  prompt?: number[]
  output?: number[]
  bias?: [id: number, value: number][]
  allowed?: number[]
}

/** kept: id -> probability. */
export type Result = { token: number; kept: Map<number, number> }

export function sample(device: Device, requests: Request[]): Result[] {
  const rows = requests.length
  const vocab = requests[0]!.logits.length
  const params = new Int32Array(16 * rows)
  const floats = new Float32Array(params.buffer)
  const history: number[] = []
  const bias: [number, number][] = []
  const masks: number[] = []
  const maskRows: number[] = []
  requests.forEach((request, i) => {
    const { prompt = [], output = [], seed = [0, 0], choice = 0, position = 0 } = request
    const { temperature = 1, topP = 1, minP = 0, repetition = 1, frequency = 0, presence = 0 } = request
    floats.set([temperature, topP, minP, repetition, frequency, presence], 16 * i)
    params.set([request.topK ?? 0, prompt.length, ...seed, choice, position], 16 * i + 6)
    params.set([history.length, history.length + prompt.length + output.length], 16 * i + 12)
    params.set([bias.length, bias.length + (request.bias?.length ?? 0)], 16 * i + 14)
    history.push(...prompt, ...output)
    bias.push(...(request.bias ?? []))
    maskRows.push(request.allowed ? masks.length / Math.ceil(vocab / 32) : -1)
    if (request.allowed) masks.push(...bitmask(request.allowed, vocab))
  })
  const out = device.alloc([rows], 'i32')
  const logits = device.alloc([rows, vocab], 'f32')
  requests.forEach((request, i) => {
    logits.write(Float32Array.from(request.logits), i * vocab)
  })
  const workspace = device.alloc([rows, vocab, 2], 'i32')
  const lists = { ids: Int32Array.from(bias, ([id]) => id), values: Float32Array.from(bias, ([, value]) => value) }
  run(device, (commands) =>
    commands.sample(
      out,
      logits,
      device.upload(params, [rows, 16]),
      device.upload(Int32Array.from(history)),
      { ids: device.upload(lists.ids), values: device.upload(lists.values) },
      masks.length > 0
        ? { mask: device.upload(Int32Array.from(masks)), row: device.upload(Int32Array.from(maskRows)) }
        : null,
      rows,
      workspace,
    ),
  )
  return Array.from(out.read(), (token, i) => ({ token, kept: keptOf(workspace.rows(i, i + 1).read()) }))
}

function bitmask(ids: number[], vocab: number): Int32Array {
  const words = new Int32Array(Math.ceil(vocab / 32))
  for (const id of ids) words[id >> 5]! |= 1 << (id & 31)
  return words
}

function keptOf(words: ArrayLike<number>): Map<number, number> {
  const weights = new Float32Array(Int32Array.from(words).buffer)
  const kept = new Map<number, number>()
  for (let i = 0; 2 * i < words.length && words[2 * i] !== -1; i++) kept.set(words[2 * i]!, weights[2 * i + 1]!)
  const total = [...kept.values()].reduce((sum, weight) => sum + weight, 0)
  return new Map([...kept].map(([id, weight]) => [id, weight / total]))
}
