// One worker thread for conversations too large to render between two tokens of other streams. It has its own heap limit,
// and is replaced when a render takes too long or exhausts it: a bad template costs its request, not the gateway.
import { Worker } from 'node:worker_threads'
import type { Clock } from '../../queue/clock.ts'
import { TemplateFailure, TemplateRefusal, type Variables } from './template.ts'

export type RenderTask = { source: string; variables: Variables; now: number }
export type RenderReply = { text: string } | { refusal: string } | { failure: string }

const RENDER_TIMEOUT_MS = 5000
const MAX_HEAP_MB = 512

export class RenderPool {
  readonly #clock: Clock
  #worker: Worker | null = null
  /** Renders are sent one after another: a timeout is then always that of the render it measured. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  render(task: RenderTask): Promise<string> {
    const rendered = this.#last.then(() => this.#render(task))
    this.#last = rendered.catch(() => {})
    return rendered
  }

  async close(): Promise<void> {
    await this.#worker?.terminate()
    this.#worker = null
  }

  async #render(task: RenderTask): Promise<string> {
    this.#worker ??= startWorker()
    const worker = this.#worker
    const { promise, resolve } = Promise.withResolvers<RenderReply>()
    const fail = () => resolve({ failure: 'the template takes too long or too much memory' })
    const stopTimer = this.#clock.after(RENDER_TIMEOUT_MS, fail)
    worker.once('message', resolve).once('error', fail)
    worker.postMessage(task)
    const reply = await promise
    stopTimer()
    worker.off('message', resolve).off('error', fail)
    if ('text' in reply) return reply.text
    if ('refusal' in reply) throw new TemplateRefusal(reply.refusal)
    await this.close() // it may still be rendering; a fresh one costs 50 ms
    throw new TemplateFailure(reply.failure)
  }
}

function startWorker(): Worker {
  const worker = new Worker(new URL('./render-worker.ts', import.meta.url), {
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
  })
  worker.unref()
  return worker
}
