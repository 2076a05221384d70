// An engine thread without kernels: the real scheduler and block pool around the mock model, under virtual time. It takes
// commands between steps and begins the next step before the last one's outputs have reached the main thread, as
// engine/worker.ts does, so aborts come as late as they do there.
import { Control } from '../../engine/control.ts'
import type { EngineStats, StepOutput } from '../../engine/engine.ts'
import { RequestRefused } from '../../engine/errors.ts'
import type { SchedulerOptions } from '../../engine/scheduler/limits.ts'
import { Scheduler, type Slice } from '../../engine/scheduler/scheduler.ts'
import type { Sequence, SequenceRequest } from '../../engine/scheduler/sequence.ts'
import type { EngineVerbs, StepListener } from '../../engine/thread.ts'
import type { Clock } from '../../queue/clock.ts'
import { Model } from './model.ts'

type Command = { type: 'add'; request: SequenceRequest } | { type: 'abort'; id: string; choice?: number }

export type EngineParts = {
  clock: Clock
  options: SchedulerOptions
  life: number
  stepMs(): number
  /** Asked with every batch: does this one kill the engine? */
  isDeadly(slice: Slice): boolean
  onDeath(): void
}

/** What the heartbeat sees of the engine thread. */
class Progress extends Control {
  done = 0
  running = false
  override get steps(): number {
    return this.done
  }
  override get isStepping(): boolean {
    return this.running
  }
}

export class SimulatedEngine implements EngineVerbs {
  readonly control = new Progress()
  /** A kernel that never returns. */
  hangs = false
  readonly #parts: EngineParts
  readonly #scheduler: Scheduler
  readonly #model: Model
  #commands: Command[] = []
  #early: StepOutput[] = []
  #isPaused = false
  #isStale = false
  #listener: StepListener = () => {}
  /** The names by which the engine calls requests: one added again is another one. */
  readonly #handles = new Map<string, string>()
  #lastHandle = 0

  constructor(parts: EngineParts) {
    this.#parts = parts
    this.#scheduler = new Scheduler(parts.options)
    this.#model = new Model({ ...parts.options, life: parts.life })
  }

  onStep(listener: StepListener) {
    this.#listener = listener
  }

  add(request: SequenceRequest) {
    const handle = `${request.id}#${++this.#lastHandle}`
    this.#handles.set(request.id, handle)
    this.#send({ type: 'add', request: { ...request, id: handle } })
  }

  abort(id: string, choice?: number) {
    const handle = this.#handles.get(id)
    if (handle === undefined) return
    this.#send({ type: 'abort', id: handle, ...(choice !== undefined && { choice }) })
    if (choice === undefined) this.forget(id)
  }

  forget(id: string) {
    this.#handles.delete(id)
  }

  pause() {
    this.#isPaused = true
  }

  resume() {
    this.#isPaused = false
    this.#work()
  }

  /** Why blocks are missing although nothing runs, or null. */
  leak(): string | null {
    const { blocks, hasWork } = this.#scheduler
    if (hasWork) return 'sequences are still in the engine'
    this.#scheduler.checkIntegrity()
    return blocks.free === blocks.total ? null : `${blocks.total - blocks.free} KV blocks are held`
  }

  stats(): EngineStats {
    const { blocks, running, waiting, waitingTokens, counts } = this.#scheduler
    return {
      ...counts,
      steps: this.control.done,
      running: running.length,
      waiting,
      waitingTokens,
      totalBlocks: blocks.total,
      freeBlocks: blocks.free,
      cachedBlocks: blocks.named,
      kvUsage: 1 - blocks.free / blocks.total,
      stepTokens: 0,
      stepSequences: 0,
      promptTokens: 0,
      generationTokens: 0,
      drafts: 0,
      draftTokens: 0,
      acceptedTokens: [],
    }
  }

  #send(command: Command) {
    this.#commands.push(command)
    this.#work()
  }

  #work() {
    if (this.control.running) return
    for (const command of this.#commands.splice(0)) this.#obey(command)
    if (this.#isPaused || (this.#early.length === 0 && !this.#scheduler.hasWork)) {
      if (this.#isStale) this.#post([])
      return
    }
    const { clock, stepMs } = this.#parts
    this.control.running = true
    const outputs = this.#step()
    if (!this.hangs) clock.after(stepMs(), () => this.#finish(outputs))
  }

  #finish(outputs: StepOutput[]) {
    this.control.running = false
    this.control.done++
    const stats = this.stats()
    this.#work()
    this.#isStale = false
    this.#listener(this.#named(outputs), stats)
  }

  #post(outputs: StepOutput[]) {
    this.#isStale = false
    const stats = this.stats()
    this.#parts.clock.after(0, () => this.#listener(outputs, stats))
  }

  #obey(command: Command) {
    if (command.type === 'abort') {
      this.#isStale = true
      this.#scheduler.abort(command.id, command.choice)
      const { id, choice } = command
      this.#early = this.#early.filter(
        (o) => o.id !== id || (choice !== undefined && 'choice' in o && o.choice !== choice),
      )
      return
    }
    const { request } = command
    try {
      for (const { sequence, ending } of this.#scheduler.add(request)) {
        const { reason: finish, ...rest } = ending
        const { choice, generated: index } = sequence
        this.#early.push({ type: 'finish', id: request.id, choice, index, finish, ...rest })
      }
    } catch (error) {
      if (!(error instanceof RequestRefused)) throw error
      this.#early.push({ type: 'failed', id: request.id, code: error.code, message: error.message })
    }
  }

  #step(): StepOutput[] {
    const outputs = this.#early.splice(0)
    const slices = this.#scheduler.schedule()
    if (slices.some(this.#parts.isDeadly)) {
      this.#parts.onDeath()
      return []
    }
    this.#model.copyBlocks(this.#scheduler.blocks.copies)
    const histories = slices.map((slice) => this.#model.forward(slice))
    for (const slice of slices) this.#scheduler.advance(slice)
    for (const [i, { sequence, yieldsToken, forks }] of slices.entries()) {
      if (!yieldsToken) continue
      for (const each of [sequence, ...forks]) outputs.push(this.#accept(each, this.#model.sample(histories[i]!, each)))
    }
    return outputs
  }

  #accept(sequence: Sequence, token: number): StepOutput {
    const { request, choice, generated: index } = sequence
    sequence.tokens.push(token)
    const ending = this.#scheduler.ending(sequence)
    if (ending) this.#scheduler.finish(sequence)
    const isFirst = index === (request.resume[choice]?.length ?? 0)
    return {
      type: 'token',
      id: request.id,
      choice,
      token,
      index,
      ...(ending && { finish: ending.reason }),
      ...(isFirst && { cachedTokens: Math.min(sequence.cachedTokens, request.prompt.length) }),
    }
  }

  /** Outputs of requests that are gone are dropped. */
  #named(outputs: StepOutput[]): StepOutput[] {
    return outputs.flatMap((output) => {
      const id = output.id.slice(0, output.id.lastIndexOf('#'))
      return this.#handles.get(id) === output.id ? [{ ...output, id }] : []
    })
  }
}
