// The main thread's end of the engine thread: the verbs of Engine as messages. Called by main.ts and daemon.ts.
// If the engine thread throws, nothing can be trusted any more: `onFailure` gets the reason and ends the process, and
// other engines take over its jobs.
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import type { EngineConfig } from './config.ts'
import { Control } from './control.ts'
import type { EngineStats, SequenceRequest, StepOutput } from './engine.ts'
import type { ModelFacts, SourceSettings, Stage } from './load.ts'
import { type Packet, unpack } from './packet.ts'
import type { Progress } from './weights/source.ts'

export type WorkerData = {
  config: EngineConfig
  settings: SourceSettings
  shared: SharedArrayBuffer
  commands: MessagePort
}
export type Command =
  | { type: 'add'; request: SequenceRequest }
  | { type: 'abort'; id: string; choice?: number }
  | { type: 'close' }
export type FromEngine =
  | { type: 'progress'; stage: Stage; progress: Progress }
  | { type: 'warning'; message: string }
  | { type: 'opened'; facts: ModelFacts }
  | { type: 'ready'; stats: EngineStats }
  | { type: 'step'; packet: Packet; stats: EngineStats }

export type StepListener = (outputs: StepOutput[], stats: EngineStats) => void

/** What the daemon needs of an engine. */
export type EngineVerbs = {
  add(request: SequenceRequest): void
  abort(id: string, choice?: number): void
  /** The request has ended and will not be named again. */
  forget(id: string): void
  /** No new step begins until `resume`. */
  pause(): void
  resume(): void
  onStep(listener: StepListener): void
}

export type ThreadOptions = {
  config: EngineConfig
  settings: SourceSettings
  onProgress(stage: Stage, progress: Progress): void
  onWarning(message: string): void
  /** The thread threw after `ready`. */
  onFailure(error: Error): void
}

export class EngineThread implements EngineVerbs {
  readonly control = new Control()
  /** The model was accepted and its memory planned; its weights are being read. */
  readonly opened: Promise<ModelFacts>
  readonly ready: Promise<EngineStats>
  readonly #worker: Worker
  readonly #commands: MessagePort
  readonly #exited: Promise<void>
  #isReady = false
  #listener: StepListener = () => {}
  /** The numbers by which the engine thread calls requests. */
  #handles = new Map<string, number>()
  #ids = new Map<number, string>()
  #lastHandle = 0

  constructor(options: ThreadOptions) {
    const { port1, port2 } = new MessageChannel()
    const data: WorkerData = {
      config: options.config,
      settings: options.settings,
      shared: this.control.shared,
      commands: port2,
    }
    this.#commands = port1
    this.#worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData: data, transferList: [port2] })
    const opened = Promise.withResolvers<ModelFacts>()
    const ready = Promise.withResolvers<EngineStats>()
    const exited = Promise.withResolvers<void>()
    this.opened = opened.promise
    this.ready = ready.promise
    this.#exited = exited.promise
    // A failure is told to whoever waits; nobody has to.
    this.opened.catch(() => {})
    this.ready.catch(() => {})
    this.#worker.on('message', (message: FromEngine) => {
      if (message.type === 'step') this.#receive(message.packet, message.stats)
      else if (message.type === 'progress') options.onProgress(message.stage, message.progress)
      else if (message.type === 'warning') options.onWarning(message.message)
      else if (message.type === 'opened') opened.resolve(message.facts)
      else {
        this.#isReady = true
        ready.resolve(message.stats)
      }
    })
    this.#worker.on('error', (error: Error) => {
      opened.reject(error)
      ready.reject(error)
      if (this.#isReady) options.onFailure(error)
    })
    this.#worker.on('exit', () => {
      // Only news to those who still wait for the model.
      const ended = new Error('the engine thread was closed')
      opened.reject(ended)
      ready.reject(ended)
      exited.resolve()
    })
  }

  get isReady(): boolean {
    return this.#isReady
  }

  onStep(listener: StepListener) {
    this.#listener = listener
  }

  add(request: SequenceRequest) {
    const handle = ++this.#lastHandle
    this.#handles.set(request.id, handle)
    this.#ids.set(handle, request.id)
    this.#send({ type: 'add', request: { ...request, id: String(handle) } })
  }

  abort(id: string, choice?: number) {
    const handle = this.#handles.get(id)
    if (handle === undefined) return
    this.#send({ type: 'abort', id: String(handle), ...(choice !== undefined && { choice }) })
    if (choice === undefined) this.forget(id)
  }

  forget(id: string) {
    const handle = this.#handles.get(id)
    if (handle === undefined) return
    this.#handles.delete(id)
    this.#ids.delete(handle)
  }

  pause() {
    this.control.pause()
  }

  resume() {
    this.control.resume()
  }

  /** Ends after the running step; at once while the model is still being read. */
  async close() {
    this.control.resume()
    this.#send({ type: 'close' })
    if (!this.#isReady) await this.#worker.terminate()
    await this.#exited
    this.#commands.close()
  }

  #send(command: Command) {
    this.#commands.postMessage(command)
    this.control.wake()
  }

  #receive(packet: Packet, stats: EngineStats) {
    this.#listener(
      unpack(packet, (handle) => this.#ids.get(handle)),
      stats,
    )
  }
}
