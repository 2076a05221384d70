// What a step costs beside the kernels: the TypeScript of the engine thread (schedule, pack, command list, sampling
// parameters, outputs, packet) and of the main thread (text, journal elements), per step of decoding sequences. Time inside
// native calls is taken out. A profile then says which files the rest is spent in. It reads the clock: on a busy machine
// the median is what the step costs, and the mean is what the neighbours cost.
//
//   node scripts/bench/step.ts [--sequences 64] [--steps 300] [--layers 30] [--logprobs 0] [--penalties]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Session } from 'node:inspector/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseEngineConfig } from '../../engine/config.ts'
import type { StepOutput } from '../../engine/engine.ts'
import { loadEngine, openModel, sourceSettings } from '../../engine/load.ts'
import type { Device } from '../../engine/native/device.ts'
import { OutputProcessor } from '../../engine/output/processor.ts'
import { Vocab } from '../../engine/output/vocab.ts'
import { pack, unpack } from '../../engine/packet.ts'
import { systemClock } from '../../queue/clock.ts'
import { encodeToken } from '../../queue/event.ts'
import { buildKernels } from '../build.ts'
import { type Flag, parseFlags } from '../cli/flags.ts'
import { SamplingParams } from '../sampling-params.ts'
import { Random } from './random.ts'
import { percentile } from './report.ts'

const PROMPT = 64

const flags: Flag[] = [
  { name: '--sequences', kind: 'integer', help: 'decoding at once' },
  { name: '--steps', kind: 'integer', help: 'measured' },
  { name: '--layers', kind: 'integer', help: 'of the model: each is a dozen records of the command list' },
  { name: '--logprobs', kind: 'integer', help: 'per token' },
  { name: '--penalties', kind: 'boolean', help: 'with repetition and frequency penalties' },
]

/** As many layers as the real ones, and so little in them that the kernels are quick. */
const shape = (layers: number) => ({
  architectures: ['LlamaForCausalLM'],
  hidden_size: 64,
  intermediate_size: 64,
  num_hidden_layers: layers,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 1024,
  max_position_embeddings: 4096,
  rms_norm_eps: 1e-5,
  hidden_act: 'silu',
  tie_word_embeddings: true,
})

/** Adds up the milliseconds spent in native calls. */
function measureNative(device: Device): { ms: number } {
  const spent = { ms: 0 }
  const { library } = device
  const call = library.call.bind(library)
  library.call = (...args) => {
    const begun = performance.now()
    call(...args)
    spent.ms += performance.now() - begun
  }
  return spent
}

async function open(layers: number, sequences: number) {
  const folder = mkdtempSync(join(tmpdir(), 'pagestream-step-'))
  writeFileSync(join(folder, 'config.json'), JSON.stringify(shape(layers)))
  const memory = { maxModelLen: 2048, kvCacheMemoryBytes: 2 ** 30, maxNumSeqs: Math.max(sequences, 8) }
  const config = parseEngineConfig({ model: folder, loadFormat: 'dummy', threads: 1, ...memory })
  const hooks = { clock: systemClock, random: Math.random }
  const opened = await openModel(config, sourceSettings(config, {}), hooks)
  const native = measureNative(opened.device)
  const loaded = await loadEngine(config, opened, hooks)
  const close = () => {
    loaded.close()
    rmSync(folder, { recursive: true })
  }
  return { engine: loaded.engine, vocab: new Vocab(opened.facts.tokenizerJson), native, close }
}

/** Self time in ms by file, what is not ours together. */
async function profile(run: () => void): Promise<Map<string, number>> {
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.setSamplingInterval', { interval: 50 })
  await session.post('Profiler.start')
  run()
  const { profile: recorded } = await session.post('Profiler.stop')
  session.disconnect()
  const files = new Map(
    recorded.nodes.map(({ id, callFrame }) => {
      const ours = /\/((?:engine|queue|scripts)\/.*)$/.exec(callFrame.url)?.[1]
      return [id, ours ?? (callFrame.url ? 'node' : callFrame.functionName)]
    }),
  )
  const spent = new Map<string, number>()
  for (const [i, id] of (recorded.samples ?? []).entries()) {
    const file = files.get(id)!
    spent.set(file, (spent.get(file) ?? 0) + recorded.timeDeltas![i]! / 1000)
  }
  return spent
}

async function main(argv: string[]): Promise<void> {
  const { values } = parseFlags(flags, argv, {})
  const { sequences = 64, steps = 300, layers = 30, logprobs } = values as Record<string, number | undefined>
  await buildKernels()
  const { engine, vocab, native, close } = await open(layers, sequences)
  const processor = new OutputProcessor(vocab)
  const random = new Random(0)
  const penalties = values.penalties ? { repetition_penalty: 1.1, frequency_penalty: 0.1 } : {}
  const params = new SamplingParams({
    ...{ temperature: 0.8, top_p: 0.95, ignore_eos: true, max_tokens: 1500 },
    ...penalties,
    ...(logprobs !== undefined && { logprobs }),
  })
  for (let i = 0; i < sequences; i++) {
    // Of different lengths, as real ones: not all fill a block in the same step.
    const prompt = Uint32Array.from({ length: PROMPT + i }, () => random.integer(0, 1023))
    const sampling = params.resolve({ seed: String(i), room: 2048 })
    processor.add({ id: String(i), prompt, sampling })
    engine.add({ id: String(i), prompt, sampling, resume: [], salt: '', adapter: 0, class: 0 })
  }

  const parts = { engine: [] as number[], native: [] as number[], packet: [] as number[], main: [] as number[] }
  const step = () => {
    native.ms = 0
    const begun = performance.now()
    const outputs = engine.step()
    const stepped = performance.now()
    const packet = pack(outputs)
    const packed = performance.now()
    const seen = unpack(packet, String)
    publish(processor, seen)
    parts.engine.push(stepped - begun - native.ms)
    parts.native.push(native.ms)
    parts.packet.push(packed - stepped)
    parts.main.push(performance.now() - packed)
  }
  // Prefill, and the time that the compiler needs.
  for (let i = 0; i < 200; i++) step()
  for (const series of Object.values(parts)) series.length = 0
  for (let i = 0; i < steps; i++) step()

  const row = (name: string, series: number[]) => {
    const sorted = series.toSorted((a, b) => a - b)
    const mean = series.reduce((sum, ms) => sum + ms, 0) / series.length
    const columns = [mean, percentile(sorted, 50), percentile(sorted, 95)].map((ms) => ms.toFixed(3).padStart(9))
    console.log(`${name.padEnd(44)}${columns.join('')}`)
  }
  const thread = parts.engine.map((ms, i) => ms + parts.packet[i]!)
  const title = `${sequences} sequences, ${layers} layers, ${steps} steps, ms per step`
  console.log(`${title.padEnd(44)}     mean      p50      p95`)
  row('engine thread, TypeScript', thread)
  row('  schedule, pack, commands, sample, outputs', parts.engine)
  row('  packet', parts.packet)
  row('main thread: text and journal elements', parts.main)
  row(
    'both',
    thread.map((ms, i) => ms + parts.main[i]!),
  )
  row('native calls of this small model', parts.native)

  const files = await profile(() => {
    for (let i = 0; i < steps; i++) step()
  })
  console.log('\nself time by file, ms per step')
  const ranked = [...files].sort((a, b) => b[1] - a[1]).slice(0, 16)
  for (const [file, ms] of ranked) console.log(`${file.padEnd(44)}${(ms / steps).toFixed(3).padStart(9)}`)
  close()
}

/** What the daemon does with a step, but for Redis. */
function publish(processor: OutputProcessor, outputs: StepOutput[]): number {
  const { touched } = processor.process(outputs.filter((output) => output.type !== 'failed'))
  let bytes = 0
  for (const { choices } of touched) for (const { tokens } of choices) bytes += encodeToken(tokens.at(-1)!).length
  return bytes
}

await main(process.argv.slice(2))
