// One life of an engine process: what engine/main.ts puts together (daemon, beat, output processor, the queue's verbs),
// around the simulated engine and over simulated connections.
import { Beat } from '../../engine/beat.ts'
import { Daemon } from '../../engine/daemon.ts'
import { OutputProcessor } from '../../engine/output/processor.ts'
import type { SchedulerOptions } from '../../engine/scheduler/limits.ts'
import type { Slice } from '../../engine/scheduler/scheduler.ts'
import { append, claim, control, doorbell, type EngineIdentity, reap, release } from '../../queue/consume.ts'
import { SimulatedEngine } from './engine.ts'
import { eosTokenIds, vocab } from './model.ts'
import { Link, type Network } from './network.ts'
import { Process } from './process.ts'

export const MODEL = 'm'
export const REVISION = 'r1'
export const LEASE_MS = 1000
const STEP_TIMEOUT_MS = 1500
const DRAIN_MS = 800

/** Small enough that prompts wait, blocks run out and sequences are preempted. */
const options: SchedulerOptions = {
  blockSize: 4,
  numBlocks: 48,
  maxModelLen: 192,
  maxNumSeqs: 8,
  maxNumBatchedTokens: 24,
  longPrefillTokenThreshold: 0,
  enableChunkedPrefill: true,
  enablePrefixCaching: true,
  eosTokenIds,
}
const KV_TOKENS = options.numBlocks * options.blockSize

export type EngineNodeOptions = {
  network: Network
  /** Counts the lives of all engines. */
  life: number
  isDeterministic: boolean
  isDeadly(slice: Slice): boolean
  /** Something that must never happen did. */
  onViolation(what: string): void
  trace(text: string): void
}

export class EngineNode {
  readonly process: Process
  readonly links: { main: Link; beat: Link }
  readonly engine: SimulatedEngine
  #daemon: Daemon | null = null
  #beat: Beat | null = null
  readonly #options: EngineNodeOptions
  readonly #identity: EngineIdentity

  constructor(node: EngineNodeOptions) {
    const { network, life } = node
    this.#options = node
    this.process = new Process(`engine ${life}`, network.timeline)
    this.links = { main: new Link(network, this.process), beat: new Link(network, this.process) }
    this.#identity = { id: `engine-${life}`, model: MODEL, revision: REVISION, numerics: 'mock' }
    this.engine = new SimulatedEngine({
      clock: this.process.clock,
      options,
      life: node.isDeterministic ? 0 : life,
      stepMs: () => 15 + 25 * network.random.uniform() + this.process.slowness,
      isDeadly: node.isDeadly,
      onDeath: () => this.process.kill(),
    })
  }

  /** Rejects when Redis cannot be reached: then the process ends. */
  async start(): Promise<void> {
    const { main, beat } = this.links
    const { clock } = this.process
    const { network, onViolation, trace } = this.#options
    const { engine } = this
    const identity = this.#identity
    const heart = new Beat({
      redis: beat,
      identity,
      control: engine.control,
      clock,
      leaseMs: LEASE_MS,
      stepTimeoutMs: STEP_TIMEOUT_MS,
      onBeat: (cancelled) => {
        for (const id of cancelled) this.#daemon?.drop(id)
      },
      onStalled: () => this.process.kill(),
      onError: (error) => trace(`${this.process.name} beat: ${error.message}`),
    })
    this.#beat = heart
    await heart.started
    this.#daemon = new Daemon({
      queue: {
        claim: (room) => claim(main, identity, room),
        append: (step) => append(main, identity, step),
        release: (held) => release(main, identity, held),
        reap: () => reap(main, MODEL),
        doorbell: (ring) => doorbell(main, MODEL, ring),
        control: (on) => control(main, identity.id, on),
        onReconnect: (listener) => main.onReconnect(listener),
      },
      engine,
      processor: new OutputProcessor(vocab),
      metrics: { step: () => {}, tokens: () => {}, resumed: () => {}, finished: () => {} },
      heart,
      clock,
      random: () => network.random.uniform(),
      limits: { maxNumSeqs: options.maxNumSeqs, kvTokens: KV_TOKENS, blockSize: options.blockSize },
      stats: engine.stats(),
      leaseMs: LEASE_MS,
      onError: (error) => trace(`${this.process.name}: ${error.message}`),
      onFailure: (error) => onViolation(`${this.process.name} contradicts itself: ${error.message}`),
    })
    await this.#daemon.start()
  }

  get held(): number {
    return this.#daemon?.held ?? 0
  }

  /** As on SIGTERM; the process ends when it is done. */
  async drain(): Promise<void> {
    await this.#daemon?.drain(DRAIN_MS).catch((error) => this.#options.trace(`drain: ${error.message}`))
    await this.#beat?.close()
    this.process.kill()
  }
}
