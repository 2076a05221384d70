// An engine process: config -> model -> card -> lease -> work. Called by the CLI (`pagestream engine`, `serve`), which
// owns signals: close() drains. What cannot be mended (a kernel's error, a hung step) ends the process at once with
// a reason and an exit code; the lease runs out and another engine goes on with the jobs.
import { randomUUID } from 'node:crypto'
import { type BaseLogger, pino } from 'pino'
import type { Card } from '../queue/card.ts'
import type { Clock } from '../queue/clock.ts'
import { append, claim, control, doorbell, type EngineIdentity, reap, release } from '../queue/consume.ts'
import { contentHash, registerCard } from '../queue/models.ts'
import type { Redis } from '../queue/redis.ts'
import { Beat, type BeatOptions } from './beat.ts'
import { type Heart, startBeatThread } from './beat-thread.ts'
import type { EngineConfig } from './config.ts'
import { Daemon, type Queue } from './daemon.ts'
import { startHealth } from './health.ts'
import { type ModelFacts, type Stage, sourceSettings } from './load.ts'
import { EngineMetrics } from './metrics.ts'
import { createCard } from './model-card.ts'
import { OutputProcessor } from './output/processor.ts'
import { Vocab } from './output/vocab.ts'
import { EngineThread } from './thread.ts'
import type { Progress } from './weights/source.ts'

export type Log = Pick<BaseLogger, 'info' | 'warn' | 'error' | 'fatal'>

export type StartOptions = {
  log?: Log
  /** How far the download or the loading of the weights is. */
  onProgress?(stage: Stage, progress: Progress): void
}

export type RunningEngine = {
  card: Card
  /** The weights are loaded and the engine takes work. */
  ready: Promise<void>
  /** Text of /metrics. */
  metrics(): Promise<string>
  /** Drains, then gives everything back. */
  close(): Promise<void>
}

/** Resolves once the model is accepted and its card registered; rejects with one clear line otherwise. */
export async function startEngine(
  config: EngineConfig,
  redis: Redis,
  clock: Clock,
  { log = pino({ name: 'engine' }, pino.destination({ fd: 2, sync: true })), onProgress = () => {} }: StartOptions = {},
): Promise<RunningEngine> {
  const thread = new EngineThread({
    config,
    settings: sourceSettings(config, process.env),
    onProgress,
    onWarning: (message) => log.warn(message),
    onFailure: (error) => exit(log, 'the engine thread failed', error),
  })
  try {
    const facts = await thread.opened
    // Built before the weights are read: a tokenizer that cannot be decoded is refused now.
    const vocab = new Vocab(facts.tokenizerJson)
    const card = await publishCard(config, facts, redis, clock)
    const engine = new EngineProcess({ config, redis, clock, log, thread, facts, vocab, card })
    await engine.listen()
    const ready = engine.run().catch(async (error) => {
      await engine.close()
      throw error
    })
    // Whoever awaits `ready` hears of it; nobody has to.
    ready.catch(() => {})
    return { card, ready, metrics: () => engine.metrics.registry.metrics(), close: () => engine.close() }
  } catch (error) {
    await thread.close()
    throw error
  }
}

async function publishCard(config: EngineConfig, facts: ModelFacts, redis: Redis, clock: Clock): Promise<Card> {
  const { tokenizerJson, chatTemplate } = facts
  const hashes = {
    tokenizer: contentHash(tokenizerJson),
    chatTemplate: chatTemplate === null ? null : contentHash(chatTemplate),
  }
  const card = createCard(config, facts, hashes, clock.now())
  await registerCard(redis, card, { tokenizer: tokenizerJson, chatTemplate })
  return card
}

type Parts = {
  config: EngineConfig
  redis: Redis
  clock: Clock
  log: Log
  thread: EngineThread
  facts: ModelFacts
  vocab: Vocab
  card: Card
}

/** What runs between the card and the end of the process. */
class EngineProcess {
  readonly metrics: EngineMetrics
  readonly #parts: Parts
  readonly #identity: EngineIdentity
  #heart: Heart | null = null
  #daemon: Daemon | null = null
  #health: { close(): Promise<void> } | null = null
  #state: 'loading' | 'ready' | 'draining' = 'loading'
  #begun: Promise<void> | null = null
  #closed: Promise<void> | null = null
  #stalled = false
  #beatAt = Number.NEGATIVE_INFINITY

  constructor(parts: Parts) {
    const { card, facts, config } = parts
    this.#parts = parts
    this.#identity = { id: randomUUID(), model: card.name, revision: card.revision, numerics: card.numerics }
    this.metrics = new EngineMetrics({ model: card.name, engine: '0' }, facts, config.enablePrefixCaching)
  }

  async listen() {
    const { metricsPort, metricsHost } = this.#parts.config
    if (metricsPort === null) return
    const probes = {
      dead: () => (this.#stalled ? 'a step hangs' : null),
      unready: () => this.#unready(),
      metrics: () => this.metrics.registry.metrics(),
    }
    this.#health = await startHealth(probes, { host: metricsHost, port: metricsPort })
  }

  /** Resolves when the engine takes work. */
  run(): Promise<void> {
    this.#begun = this.#begin()
    return this.#begun
  }

  async #begin() {
    const { thread, config, clock, log, facts, vocab, card } = this.#parts
    const begun = clock.monotonic()
    const stats = await thread.ready
    this.metrics.step(stats)
    this.#heart = this.#startHeart()
    await this.#heart.started
    this.#beatAt = clock.monotonic()
    this.#daemon = new Daemon({
      queue: this.#bindQueue(),
      engine: thread,
      processor: new OutputProcessor(vocab),
      metrics: this.metrics,
      heart: this.#heart,
      clock,
      random: Math.random,
      limits: { maxNumSeqs: config.maxNumSeqs, ...facts.capacity },
      stats,
      leaseMs: config.leaseMs,
      onError: (error) => log.warn({ err: error }, 'Redis failed; trying again'),
      onFailure: (error) => exit(log, 'the output of the engine is inconsistent', error),
    })
    await this.#daemon.start()
    if (this.#state === 'loading') this.#state = 'ready'
    const { capacity, device, dtype, numerics } = facts
    const seconds = (clock.monotonic() - begun) / 1000
    log.info(
      { model: card.name, device, dtype, numerics, ...capacity, seconds, engine: this.#identity.id },
      'engine ready',
    )
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close() {
    const { config, thread, log } = this.#parts
    this.#state = 'draining'
    if (!thread.isReady) await thread.close()
    await this.#begun?.catch(() => {})
    log.info({ running: this.#daemon?.held ?? 0 }, 'engine draining')
    await this.#daemon?.drain(config.shutdownTimeout * 1000).catch((error) => {
      log.warn({ err: error }, 'could not give jobs back; they move when the lease has run out')
    })
    await this.#heart?.close()
    await thread.close()
    await this.#health?.close()
  }

  #unready(): string | null {
    if (this.#state !== 'ready') return this.#state
    const silentMs = this.#parts.clock.monotonic() - this.#beatAt
    return silentMs < 2 * this.#parts.config.leaseMs ? null : 'the lease cannot be renewed'
  }

  #startHeart(): Heart {
    const { config, redis, clock, thread, log } = this.#parts
    const options: Omit<BeatOptions, 'redis' | 'clock'> = {
      identity: this.#identity,
      control: thread.control,
      leaseMs: config.leaseMs,
      stepTimeoutMs: config.stepTimeoutMs,
      onBeat: (cancelled) => {
        this.#beatAt = clock.monotonic()
        for (const id of cancelled) this.#daemon?.drop(id)
      },
      onStalled: () => {
        this.#stalled = true
        log.fatal({ stepTimeoutMs: config.stepTimeoutMs }, 'a step hangs; its work goes to another engine')
        // A thread inside a native call cannot be ended: process.exit would wait for it.
        process.kill(process.pid, 'SIGKILL')
      },
      onError: (error) => log.warn({ err: error }, 'heartbeat failed; trying again'),
    }
    return config.redisUrl === null
      ? new Beat({ ...options, redis, clock })
      : startBeatThread({
          ...options,
          redisUrl: config.redisUrl,
          onFailure: (error) => exit(log, 'the heartbeat thread failed', error),
        })
  }

  #bindQueue(): Queue {
    const { redis } = this.#parts
    const engine = this.#identity
    return {
      claim: (room) => claim(redis, engine, room),
      append: (step) => append(redis, engine, step),
      release: (held) => release(redis, engine, held),
      reap: () => reap(redis, engine.model),
      doorbell: (ring) => doorbell(redis, engine.model, ring),
      control: (on) => control(redis, engine.id, on),
      onReconnect: (listener) => redis.onReconnect(listener),
    }
  }
}

/** Nothing in the process can be trusted any more; queued work is safe in Redis. */
function exit(log: Log, what: string, error: Error): never {
  log.fatal({ err: error }, what)
  process.exit(70)
}
