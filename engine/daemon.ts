// The only engine file that knows there is a queue: claims jobs that fit, hands them to the engine, sends what the engine
// produced to the journal, and obeys what comes back (fenced, gap, cancel). Started by main.ts.
//
// One append is under way at most; what is produced meanwhile leaves with the next one, so a slow Redis makes larger
// appends, not a longer queue. A request may run ahead of the journal by MAX_UNACKNOWLEDGED tokens; then the engine
// pauses. Claims are made when there may be work (doorbell, slow poll, reconnection) and there is room, one at a time.
import type { Clock } from '../queue/clock.ts'
import type { Append, Claimed, Room, Verdict } from '../queue/consume.ts'
import type { EngineStats, StepOutput } from './engine.ts'
import type { EngineMetrics } from './metrics.ts'
import { Outbox } from './outbox.ts'
import type { OutputProcessor } from './output/processor.ts'
import type { EngineVerbs } from './thread.ts'

const MAX_UNACKNOWLEDGED = 256
const POLL_MS = 250
const RETRY_MS = 200

/** The queue's verbs, bound to this engine's pool (main.ts); tests bind them to a double. */
export type Queue = {
  claim(room: Room): Promise<Claimed[]>
  append(step: Append[]): Promise<Verdict[]>
  release(held: { id: string; epoch: string }[]): Promise<void>
  reap(): Promise<number>
  doorbell(ring: () => void): Promise<() => void>
  control(on: (message: { cancel: string }) => void): Promise<() => void>
  onReconnect(listener: () => void): () => void
}

export type DaemonOptions = {
  queue: Queue
  engine: EngineVerbs
  processor: OutputProcessor
  metrics: Pick<EngineMetrics, 'step' | 'tokens' | 'resumed' | 'finished'>
  /** Keeps the lease; told what is held. */
  heart: { hold(id: string): void; drop(id: string): void }
  clock: Clock
  /** Uniform in [0, 1): spreads the polls of many engines. */
  random: () => number
  limits: { maxNumSeqs: number; kvTokens: number; blockSize: number }
  stats: EngineStats
  leaseMs: number
  onError(error: Error): void
  /** Called when an output cannot be true (a bug): the process must end. */
  onFailure(error: Error): void
}

export class Daemon {
  readonly #options: DaemonOptions
  readonly #jobs = new Map<string, Outbox>()
  readonly #dirty = new Set<Outbox>()
  #stats: EngineStats
  /** There may be something to claim. */
  #rung = false
  #claiming = false
  #draining = false
  #paused = false
  #appending: Promise<void> | null = null
  #stops: (() => void)[] = []
  #idle: (() => void) | null = null

  constructor(options: DaemonOptions) {
    this.#options = options
    this.#stats = options.stats
  }

  /** After the first beat: an engine without a lease is given nothing. */
  async start() {
    const { queue, engine, clock, random, leaseMs } = this.#options
    engine.onStep((outputs, stats) => this.#step(outputs, stats))
    const ring = () => this.#ring()
    this.#stops = [
      await queue.doorbell(ring),
      await queue.control(({ cancel }) => this.drop(cancel)),
      queue.onReconnect(ring),
      clock.every(POLL_MS * (1 + random()), ring),
      // The work of a dead engine waits for its lease to run out and then for this.
      clock.every((leaseMs / 4) * (1 + random()), () => queue.reap().catch(this.#options.onError)),
    ]
    ring()
  }

  get held(): number {
    return this.#jobs.size
  }

  /** The job is no longer ours: cancelled, or moved to another engine. */
  drop(id: string) {
    const job = this.#jobs.get(id)
    if (!job) return
    this.#options.engine.abort(id)
    this.#options.metrics.finished(job, 'abort')
    this.#forget(job)
  }

  /** Claims no more, lets the running jobs finish for at most `timeoutMs`, gives the rest back without a strike. */
  async drain(timeoutMs: number) {
    const { queue, engine, clock } = this.#options
    this.#draining = true
    if (this.#jobs.size > 0 || this.#claiming) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve
        this.#stops.push(clock.after(timeoutMs, resolve))
      })
    }
    for (const stop of this.#stops) stop()
    // What was produced but not sent is produced again by whoever claims the job next.
    const rest = [...this.#jobs.values()]
    for (const job of rest) {
      engine.abort(job.job.id)
      this.#forget(job)
    }
    await this.#appending
    if (rest.length > 0) await queue.release(rest.map(({ job, epoch }) => ({ id: job.id, epoch })))
  }

  #ring() {
    this.#rung = true
    this.#claim()
  }

  #claim() {
    const room = this.#room()
    if (!this.#rung || this.#claiming || this.#draining || !room) return
    this.#claiming = true
    this.#rung = false
    this.#options.queue
      .claim(room)
      .then((claimed) => {
        // There may be more where these came from.
        if (claimed.length > 0) this.#rung = true
        for (const one of claimed) this.#begin(one)
      })
      .catch(this.#options.onError)
      .finally(() => {
        this.#claiming = false
        this.#claim()
        this.#checkIdle()
      })
  }

  /** What could start now; null when nothing should. Claimed but waiting in an engine, a job would be out of reach of
   * the others, so nothing is claimed while sequences wait here. */
  #room(): Room | null {
    const { limits } = this.#options
    let sequences = limits.maxNumSeqs
    // The statistics are those of the last step: of an engine that holds nothing they may be out of date.
    if (this.#jobs.size === 0) return { tokens: limits.kvTokens, sequences, prefixes: [] }
    let tokens = this.#stats.freeBlocks * limits.blockSize
    for (const { job, firstTokenAt } of this.#jobs.values()) {
      sequences -= job.sampling.n
      // Not in the statistics yet, or not wholly.
      if (firstTokenAt === null) tokens -= job.prompt.length + job.sampling.n
    }
    if (sequences <= 0 || tokens <= 0 || this.#stats.waiting > 0) return null
    return { tokens, sequences, prefixes: [] }
  }

  #begin({ job, epoch, journal }: Claimed) {
    const { engine, processor, heart, clock, metrics } = this.#options
    // Claimed again while still held: the first claim has been taken from us meanwhile.
    this.drop(job.id)
    const output = processor.add(job, journal)
    const outbox = new Outbox(job, epoch, output, clock.monotonic())
    this.#jobs.set(job.id, outbox)
    heart.hold(job.id)
    if (output.isFinished) this.#send(outbox)
    else {
      const resume = output.choices.map(({ tokens }) => Uint32Array.from(tokens, (token) => token.id))
      const { id, prompt, sampling, salt, adapter } = job
      if (resume.some((ids) => ids.length > 0)) metrics.resumed()
      engine.add({ id, prompt, sampling, resume, salt, adapter, class: job.class })
      for (const [choice, { finish }] of output.choices.entries()) if (finish) engine.abort(id, choice)
    }
  }

  #step(outputs: StepOutput[], stats: EngineStats) {
    const { processor, engine, metrics, clock, onFailure } = this.#options
    this.#stats = stats
    metrics.step(stats)
    try {
      const { touched, stopped } = processor.process(outputs.filter((output) => output.type !== 'failed'))
      for (const { id, choice } of stopped) engine.abort(id, choice)
      const now = clock.monotonic()
      for (const { id } of touched) {
        const job = this.#jobs.get(id)
        if (!job) continue
        metrics.tokens(job, now)
        job.gotTokens(now)
        this.#dirty.add(job)
      }
    } catch (error) {
      onFailure(error as Error)
      return
    }
    for (const output of outputs) {
      const job = output.type === 'failed' ? this.#jobs.get(output.id) : undefined
      if (job && output.type === 'failed') this.#fail(job, output.code, output.message)
    }
    this.#flush()
    this.#claim()
  }

  #fail(job: Outbox, code: NonNullable<Outbox['failed']>['code'], message: string) {
    job.failed = { code, message }
    this.#send(job)
  }

  #send(job: Outbox) {
    this.#dirty.add(job)
    this.#flush()
  }

  /** Sends everything that is new, then what has become new meanwhile. */
  #flush() {
    this.#limit()
    if (this.#appending || this.#dirty.size === 0) return
    this.#appending = this.#append().finally(() => {
      this.#appending = null
      this.#flush()
    })
  }

  async #append() {
    const { queue, clock, onError } = this.#options
    const jobs: Outbox[] = []
    const step: Append[] = []
    for (const job of this.#dirty) {
      const append = job.take()
      if (!append) continue
      jobs.push(job)
      step.push(append)
    }
    this.#dirty.clear()
    try {
      const verdicts = await queue.append(step)
      for (const [i, job] of jobs.entries()) this.#obey(job, verdicts[i] as Verdict)
    } catch (error) {
      // Appends may be repeated: whether Redis took this one or not, the next says the same and more.
      onError(error as Error)
      for (const job of jobs) if (this.#isHeld(job)) this.#dirty.add(job)
      await clock.sleep(RETRY_MS)
    }
  }

  #obey(job: Outbox, verdict: Verdict) {
    if (!this.#isHeld(job)) return
    if (verdict === 'fenced') this.drop(job.job.id)
    else if (job.settle(verdict)) this.#complete(job)
    else if (verdict !== 'ok') this.#dirty.add(job)
  }

  #isHeld(job: Outbox): boolean {
    return this.#jobs.get(job.job.id) === job
  }

  #complete(job: Outbox) {
    const reason = job.failed ? 'error' : (job.output.choices.at(-1)?.finish?.reason ?? 'stop')
    this.#options.metrics.finished(job, reason)
    if (job.failed) this.#options.engine.abort(job.job.id)
    else this.#options.engine.forget(job.job.id)
    this.#forget(job)
    // What did not fit before may fit now.
    this.#ring()
  }

  #forget(job: Outbox) {
    const { id } = job.job
    this.#jobs.delete(id)
    this.#dirty.delete(job)
    this.#options.processor.remove(id)
    this.#options.heart.drop(id)
    this.#checkIdle()
  }

  #checkIdle() {
    if (this.#jobs.size === 0 && !this.#claiming) this.#idle?.()
  }

  /** The engine must not run far ahead of what Redis has acknowledged. */
  #limit() {
    const { engine } = this.#options
    const isAhead = [...this.#dirty].some((job) => job.unacknowledged >= MAX_UNACKNOWLEDGED)
    if (isAhead === this.#paused) return
    this.#paused = isAhead
    if (isAhead) engine.pause()
    else engine.resume()
  }
}
