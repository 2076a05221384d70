// One SSE answer, written straight to node's ServerResponse (a third of the cost of a web stream per token). The rules:
//   - the 200 goes out with open(), not before: until then the route can still answer 4xx or 5xx;
//   - a stream ends with [DONE], or with an error event and a destroyed socket, never cleanly without either: clients
//     take a clean end for success;
//   - a reader that is slower than the model holds at most HIGH_WATER bytes in the socket and MAX_HELD here, and is cut
//     off when it has read nothing for `stalledReaderMs`.
import type { ServerResponse } from 'node:http'
import type { Clock } from '../../queue/clock.ts'
import { done, errorEvent } from './chunks.ts'

const HIGH_WATER = 64 * 1024
const MAX_HELD = 4 * 1024 * 1024

export type SseOptions = {
  keepAliveCommentMs: number
  stalledReaderMs: number
  /** More is waiting for the client than it reads: the source should pause, until it has read that. */
  onFull?: () => void
  onDrained?: () => void
  /** The client is gone, or was cut off: nothing written from now on arrives. */
  onGone: () => void
}

export class SseWriter {
  readonly #out: ServerResponse
  readonly #clock: Clock
  readonly #options: SseOptions
  readonly #stopComments: () => void
  #stopStallTimer: (() => void) | null = null
  /** Events that wait for the socket to drain. */
  #held: string[] = []
  #heldLength = 0
  #quiet = false
  #closed = false
  #ending = false

  constructor(out: ServerResponse, headers: Iterable<[string, string]>, clock: Clock, options: SseOptions) {
    this.#out = out
    this.#clock = clock
    this.#options = options
    for (const [name, value] of headers) out.setHeader(name, value)
    out.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
    })
    out.flushHeaders()
    out.on('drain', () => this.#drained())
    out.on('close', () => this.#gone())
    this.#stopComments = clock.every(options.keepAliveCommentMs, () => this.#comment())
  }

  write(events: string): void {
    if (this.#closed || events === '') return
    this.#quiet = false
    if (this.#stopStallTimer !== null) this.#hold(events)
    else this.#send(events)
  }

  end(): void {
    this.write(done)
    this.#ending = true
    this.#finish()
  }

  /** `envelope` is OpenAI's error object as JSON. */
  fail(envelope: string): void {
    if (this.#closed) return
    this.#stop()
    this.#out.write(errorEvent(envelope), () => this.#out.destroy())
    // A reader that does not read must not keep the socket of a failed stream.
    this.#stopStallTimer = this.#clock.after(1000, () => this.#out.destroy())
    this.#out.once('close', () => this.#stopStallTimer?.())
  }

  #send(events: string): void {
    this.#out.write(events)
    if (this.#out.writableLength > HIGH_WATER) {
      this.#stopStallTimer = this.#clock.after(this.#options.stalledReaderMs, () => this.#out.destroy())
      this.#options.onFull?.()
    }
  }

  #hold(events: string): void {
    this.#held.push(events)
    this.#heldLength += events.length
    if (this.#heldLength > MAX_HELD) this.#out.destroy()
  }

  #drained(): void {
    if (this.#closed || this.#stopStallTimer === null) return
    this.#stopStallTimer()
    this.#stopStallTimer = null
    const events = this.#held.join('')
    this.#held = []
    this.#heldLength = 0
    if (events !== '') this.#send(events)
    this.#finish()
    if (this.#stopStallTimer === null) this.#options.onDrained?.()
  }

  #finish(): void {
    if (!this.#ending || this.#closed || this.#held.length > 0) return
    this.#stop()
    this.#out.end()
  }

  #comment(): void {
    if (this.#quiet && this.#stopStallTimer === null) this.#send(': keep-alive\n\n')
    this.#quiet = true
  }

  #gone(): void {
    if (this.#closed) return
    this.#stop()
    this.#options.onGone()
  }

  #stop(): void {
    this.#closed = true
    this.#held = []
    this.#stopComments()
    this.#stopStallTimer?.()
    this.#stopStallTimer = null
  }
}
