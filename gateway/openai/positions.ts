// SSE events that say where in the stream they stand, so that a client can go on from there: `id: <position>`. A position
// is, per choice and joined by dots, the number of tokens up to the event, then one more for text held back until the
// end and one more for the finish. It is a function of the token index, whatever the stream was cut by or carried.
import type { Finish, Token, Usage } from '../../queue/event.ts'
import type { Chunks } from './chunks.ts'

export class Positions implements Chunks {
  readonly #chunks: Chunks
  /** What the client has; events up to there are formed, since later ones depend on them, but not sent. */
  readonly #after: number[]
  readonly #at: number[]
  readonly #isResumed: boolean

  constructor(chunks: Chunks, choices: number, after: number[] = []) {
    this.#chunks = chunks
    this.#after = Array.from({ length: choices }, (_, choice) => after[choice] ?? 0)
    this.#at = new Array<number>(choices).fill(0)
    this.#isResumed = this.#after.some((position) => position > 0)
  }

  open(choice: number): string {
    const events = this.#chunks.open(choice)
    return this.#isResumed ? '' : events
  }

  tokens(choice: number, tokens: Token[]): string {
    let events = ''
    for (const token of tokens) {
      this.#at[choice]!++
      events += this.#sent(choice, this.#chunks.tokens(choice, [token]))
    }
    return events
  }

  finish(choice: number, finish: Finish): string {
    const parts = this.#chunks.finish(choice, finish).split(/(?<=\n\n)/)
    const last = parts.pop()!
    this.#at[choice]!++
    const held = this.#sent(choice, parts.join(''))
    this.#at[choice]!++
    return held + this.#sent(choice, last)
  }

  usage(usage: Usage): string {
    return this.#chunks.usage(usage)
  }

  #sent(choice: number, event: string): string {
    if (event === '' || this.#at[choice]! <= this.#after[choice]!) return ''
    return `id: ${this.#at.map((at, i) => Math.max(at, this.#after[i]!)).join('.')}\n${event}`
  }
}
