// An engine without a model behind the real queue: `fake-i20` gives every sequence a token each 20 ms (`fake-i0`: as
// fast as the journal takes them), and the texts are `t0`, ` t1`, … so that a client sees what is missing. Everything
// but the arithmetic is the product's own: card, lease, claim, journal, drain. For benchmarks and faults of the rest.
//
//     node scripts/bench/fake-engine.ts --redis redis://… --model fake-i20 [--max-num-seqs 4096] [--lease-ms 3000]
import { randomUUID } from 'node:crypto'
import { parseArgs } from 'node:util'
import { Beat } from '../../engine/beat.ts'
import { Control } from '../../engine/control.ts'
import { Daemon } from '../../engine/daemon.ts'
import type { EngineStats, SequenceRequest, StepOutput } from '../../engine/engine.ts'
import { EngineMetrics } from '../../engine/metrics.ts'
import { OutputProcessor } from '../../engine/output/processor.ts'
import { Vocab } from '../../engine/output/vocab.ts'
import type { EngineVerbs, StepListener } from '../../engine/thread.ts'
import type { Card } from '../../queue/card.ts'
import { type Clock, systemClock } from '../../queue/clock.ts'
import { append, claim, control, doorbell, reap, release } from '../../queue/consume.ts'
import { contentHash, registerCard } from '../../queue/models.ts'
import { connectRedis, type Redis } from '../../queue/redis.ts'

const MAX_LENGTH = 4096
const BLOCK_SIZE = 16
/** Ids below are the bytes, so that any prompt can be encoded; the token with index i is FIRST + i. */
const FIRST = 256

/** Byte-level BPE without a merge. */
function tokenizerJson(): string {
  const vocab: Record<string, number> = {}
  // GPT-2's names of the bytes: printable ones stand for themselves, the others for characters from 256 on.
  const isPrintable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173)
  let others = 0
  for (let byte = 0; byte < FIRST; byte++) {
    vocab[String.fromCharCode(isPrintable(byte) ? byte : 256 + others++)] = byte
  }
  for (let i = 0; i < MAX_LENGTH; i++) vocab[i === 0 ? 't0' : `\u0120t${i}`] = FIRST + i
  const level = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }
  return JSON.stringify({
    version: '1.0',
    added_tokens: [],
    pre_tokenizer: level,
    decoder: level,
    model: { type: 'BPE', vocab, merges: [] },
  })
}

type FakeSequence = { id: string; choice: number; index: number; end: number; blocks: number }

/** Steps every `ms` while it has sequences; accounts for blocks as an engine does, so that leaks show. */
class FakeEngine implements EngineVerbs {
  readonly control = new Control()
  readonly #clock: Clock
  readonly #ms: number
  readonly #totalBlocks: number
  #sequences: FakeSequence[] = []
  #listener: StepListener = () => {}
  #paused = false
  #stopTimer: (() => void) | null = null
  #nextAt = 0
  #freeBlocks: number
  #steps = 0
  #tokens = 0

  constructor(clock: Clock, ms: number, totalBlocks: number) {
    this.#clock = clock
    this.#ms = ms
    this.#totalBlocks = totalBlocks
    this.#freeBlocks = totalBlocks
  }

  add({ id, prompt, sampling, resume }: SequenceRequest): void {
    const blocks = Math.ceil((prompt.length + sampling.maxTokens) / BLOCK_SIZE)
    for (let choice = 0; choice < sampling.n; choice++) {
      this.#sequences.push({ id, choice, index: resume[choice]?.length ?? 0, end: sampling.maxTokens, blocks })
      this.#freeBlocks -= blocks
    }
    this.#schedule()
  }

  abort(id: string, choice?: number): void {
    this.#keep((sequence) => sequence.id !== id || (choice !== undefined && sequence.choice !== choice))
  }

  forget(): void {}

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#schedule()
  }

  onStep(listener: StepListener): void {
    this.#listener = listener
  }

  stats(): EngineStats {
    const rest = { waiting: 0, waitingTokens: 0, cachedBlocks: 0, prefixQueries: 0, prefixHits: 0, preemptions: 0 }
    const running = this.#sequences.length
    const steps = { steps: this.#steps, stepTokens: running, stepSequences: running, promptTokens: 0 }
    const blocks = { totalBlocks: this.#totalBlocks, freeBlocks: this.#freeBlocks }
    const guesses = { drafts: 0, draftTokens: 0, acceptedTokens: [] }
    const kvUsage = 1 - this.#freeBlocks / this.#totalBlocks
    return { ...rest, ...steps, ...blocks, ...guesses, running, kvUsage, generationTokens: this.#tokens }
  }

  close(): void {
    this.#stopTimer?.()
    this.#sequences = []
  }

  #keep(keeps: (sequence: FakeSequence) => boolean): void {
    this.#sequences = this.#sequences.filter((sequence) => {
      if (keeps(sequence)) return true
      this.#freeBlocks += sequence.blocks
      return false
    })
  }

  /** Steps keep their rate: a late one is followed by a shorter pause, unless the engine is behind by a whole step. */
  #schedule(): void {
    if (this.#stopTimer || this.#paused || this.#sequences.length === 0) return
    const now = this.#clock.monotonic()
    this.#nextAt = Math.max(this.#nextAt + this.#ms, now)
    const run = () => {
      this.#stopTimer = null
      if (!this.#paused) this.#step()
      this.#schedule()
    }
    if (this.#ms > 0) this.#stopTimer = this.#clock.after(this.#nextAt - now, run)
    else {
      // A timer of 0 ms would take one.
      const immediate = setImmediate(run)
      this.#stopTimer = () => clearImmediate(immediate)
    }
  }

  #step(): void {
    const outputs: StepOutput[] = this.#sequences.map((sequence) => {
      const index = sequence.index++
      const finish = sequence.index === sequence.end ? ({ finish: 'length' } as const) : {}
      const { id, choice } = sequence
      return { type: 'token', id, choice, index, token: FIRST + (index % MAX_LENGTH), ...finish }
    })
    this.#steps++
    this.#tokens += outputs.length
    this.#keep((sequence) => sequence.index < sequence.end)
    this.#listener(outputs, this.stats())
  }
}

export type FakeOptions = { model: string; leaseMs: number; maxNumSeqs: number; onError?: (error: Error) => void }
export type RunningFake = { freeBlocks(): number; totalBlocks: number; close(): Promise<void> }

export async function startFakeEngine(redis: Redis, clock: Clock, options: FakeOptions): Promise<RunningFake> {
  const { model, leaseMs, maxNumSeqs, onError = (error) => console.error(error.message) } = options
  const interval = /^fake-i(\d+)$/.exec(model)?.[1]
  if (interval === undefined) throw new Error(`--model must be fake-i<ms>, not "${model}"`)
  const totalBlocks = maxNumSeqs * Math.ceil(MAX_LENGTH / BLOCK_SIZE)
  const engine = new FakeEngine(clock, Number(interval), totalBlocks)
  const tokenizer = tokenizerJson()
  const card: Card = {
    name: model,
    aliases: [],
    revision: 'fake',
    numerics: 'fake',
    root: model,
    created: Math.floor(clock.now() / 1000),
    maxModelLength: MAX_LENGTH,
    kvTokens: totalBlocks * BLOCK_SIZE,
    blockSize: BLOCK_SIZE,
    vocabularySize: FIRST + MAX_LENGTH,
    tokenizer: contentHash(tokenizer),
    chatTemplate: null,
    specialTokens: {},
    eosTokenIds: [],
    defaults: {},
    maxLogprobs: 0,
  }
  const identity = { id: randomUUID(), model, revision: card.revision, numerics: card.numerics }
  const capacity = { blocks: totalBlocks, blockSize: BLOCK_SIZE, kvTokens: card.kvTokens, maxModelLength: MAX_LENGTH }
  const beat = new Beat({
    redis,
    identity,
    control: engine.control,
    clock,
    leaseMs,
    stepTimeoutMs: 60_000,
    onBeat: (cancelled) => {
      for (const id of cancelled) daemon.drop(id)
    },
    onStalled: () => onError(new Error('the fake engine stalled')),
    onError,
  })
  const daemon = new Daemon({
    queue: {
      claim: (room) => claim(redis, identity, room),
      append: (step) => append(redis, identity, step),
      release: (held) => release(redis, identity, held),
      reap: () => reap(redis, model),
      doorbell: (ring) => doorbell(redis, model, ring),
      control: (on) => control(redis, identity.id, on),
      onReconnect: (listener) => redis.onReconnect(listener),
    },
    engine,
    processor: new OutputProcessor(new Vocab(tokenizer)),
    metrics: new EngineMetrics({ model, engine: '0' }, { capacity, kvCacheDtype: 'float32' }, false),
    heart: beat,
    clock,
    random: Math.random,
    limits: { maxNumSeqs, ...capacity },
    stats: engine.stats(),
    leaseMs,
    onError,
    onFailure: (error) => {
      throw error
    },
  })
  await beat.started
  await daemon.start()
  await registerCard(redis, card, { tokenizer, chatTemplate: null })
  const close = async () => {
    await daemon.drain(0)
    await beat.close()
    engine.close()
  }
  return { freeBlocks: () => engine.stats().freeBlocks, totalBlocks, close }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      redis: { type: 'string' },
      model: { type: 'string', default: 'fake-i20' },
      'max-num-seqs': { type: 'string', default: '4096' },
      'lease-ms': { type: 'string', default: '3000' },
    },
  })
  if (!values.redis) throw new Error('--redis URL is needed: the fake engine meets gateways in Redis')
  const redis = await connectRedis(values.redis)
  const leaseMs = Number(values['lease-ms'])
  const fake = await startFakeEngine(redis, systemClock, {
    model: values.model,
    leaseMs,
    maxNumSeqs: Number(values['max-num-seqs']),
  })
  console.log(`${values.model} is ready`)
  // For whoever looks for leaks: the free blocks on demand.
  process.on('SIGUSR2', () => console.log(`blocks ${fake.freeBlocks()} of ${fake.totalBlocks} free`))
  process.once('SIGTERM', async () => {
    await fake.close()
    await redis.close()
    process.exit(0)
  })
}

if (import.meta.main) await main()
