// What one reader of one request has been given so far, and what it is given next. Kept by Streams (stream.ts). Every
// token of every choice is delivered once and in order, whatever overlaps or repeats; all of it is kept, compactly, so
// that the journal can be put back if Redis loses it and a fork be told from a repetition.
import { decodeElement, type Event } from './event.ts'
import type { Origin } from './repair.ts'

export type Request = {
  id: string
  model: string
  n: number
  /** Whoever has the job can bring it back after Redis has lost it. */
  origin?: Origin
}

export type RawElement = Parameters<typeof decodeElement>[0] & unknown[]

/** Elements given to the listener before it is asked again whether it can take more. */
const SLICE = 64

class ChoiceDelivery {
  readonly #ids: number[] = []
  readonly #texts: string[] = []
  /** What stands behind the text: log-probabilities, or the reason of the finish; holes elsewhere. */
  readonly #rest: unknown[][] = []
  finished = false

  get length(): number {
    return this.#ids.length
  }

  add([id, text, ...rest]: RawElement): void {
    if (rest.length > 0) this.#rest[this.#ids.length] = rest
    this.#ids.push(id as number)
    this.#texts.push(text as string)
    this.finished = id === -1
  }

  /** As in the journal. */
  elements(): string[] {
    return this.#ids.map((id, i) => JSON.stringify([id, this.#texts[i], ...(this.#rest[i] ?? [])]))
  }

  /** Whether a journal says otherwise than what was delivered. */
  contradicts(from: number, elements: RawElement[]): boolean {
    return elements.some(([id, text], i) => {
      const at = from + i
      return at < this.#ids.length && (this.#ids[at] !== id || this.#texts[at] !== text)
    })
  }
}

export class Delivery {
  readonly request: Request
  readonly listener: (event: Event) => void
  readonly choices: ChoiceDelivery[]
  epoch = ''
  /** Pin of the engines that made the tokens, once heard. */
  pin = ''
  /** How many readers had attached when this one did: only the newest repairs. */
  generation = 1
  /** Redis was seen to know the job. */
  known = false
  attached = true
  /** The listener has had enough for now; the journal holds the rest. */
  paused = false
  readonly attachedAt: number
  heardAt: number
  /** There is more than the fetch under way will bring. */
  behind = false
  fetching = false
  repairing = false

  constructor(request: Request, listener: (event: Event) => void, now: number) {
    this.request = request
    this.listener = listener
    this.choices = Array.from({ length: request.n }, () => new ChoiceDelivery())
    this.attachedAt = now
    this.heardAt = now
  }

  get finished(): boolean {
    return this.choices.every((choice) => choice.finished)
  }

  /** Delivers what is new of `elements`, the first of which has index `from` <= delivered, until detached or paused. */
  deliver(index: number, from: number, elements: RawElement[]): void {
    const choice = this.choices[index]!
    for (;;) {
      const start = choice.length
      const slice = elements.slice(start - from, start - from + SLICE)
      if (slice.length === 0 || !this.attached || this.paused) return
      for (const element of slice) choice.add(element)
      const decoded = slice.map(decodeElement)
      const tokens = decoded.flatMap((element) => ('token' in element ? [element.token] : []))
      if (tokens.length > 0) this.listener({ type: 'tokens', choice: index, from: start, tokens })
      const last = decoded.at(-1)!
      if (!('finish' in last) || !this.attached) continue
      this.listener({ type: 'finish', choice: index, index: start + tokens.length, ...last.finish })
    }
  }
}
