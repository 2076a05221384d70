// The queue's verbs in memory, with the protocol's rules: epochs, offsets, gaps. Tests reach into it to lose replies, cut
// journals and hold answers back.
import type { Queue } from '../../engine/daemon.ts'
import type { Append, Claimed, Room, Verdict } from '../../queue/consume.ts'
import { decodeElement, type Element, encodeFinish, encodeToken, type Usage } from '../../queue/event.ts'
import type { Job } from '../../queue/job.ts'

type Entry = { job: Job; epoch: number; journal: string[][]; end: Usage | { code: string } | null }

export class QueueDouble implements Queue {
  waiting: Entry[] = []
  entries = new Map<string, Entry>()
  rooms: Room[] = []
  appends: Append[][] = []
  released: string[] = []
  /** Awaited before an append is carried out. */
  gate: Promise<void> = Promise.resolve()
  /** Fails the next append, before or after it took effect. */
  failNext: 'before' | 'after' | null = null
  ring = () => {}
  cancel: (message: { cancel: string }) => void = () => {}

  push(job: Job, journal: string[][] = []) {
    const entry = {
      job,
      epoch: 0,
      journal: Array.from({ length: job.sampling.n }, (_, i) => journal[i] ?? []),
      end: null,
    }
    this.entries.set(job.id, entry)
    this.waiting.push(entry)
    this.ring()
  }

  async claim(room: Room): Promise<Claimed[]> {
    this.rooms.push(room)
    const fits = this.waiting.splice(0, room.sequences)
    return fits.map((entry) => {
      entry.epoch++
      const journal: Element[][] = entry.journal.map((choice) => choice.map((element) => decodeElement(element)))
      return { job: entry.job, epoch: String(entry.epoch), journal }
    })
  }

  async append(step: Append[]): Promise<Verdict[]> {
    await this.gate
    this.appends.push(step)
    const fail = this.failNext
    this.failNext = null
    if (fail === 'before') throw new Error('Command timed out')
    const verdicts = step.map((append) => this.#write(append))
    if (fail === 'after') throw new Error('Command timed out')
    return verdicts
  }

  #write({ id, epoch, choices, usage, failed }: Append): Verdict {
    const entry = this.entries.get(id)
    if (!entry || String(entry.epoch) !== epoch) return 'fenced'
    if (choices.some(({ choice, from }) => from > entry.journal[choice]!.length)) {
      return { gapFrom: entry.journal.map((journal) => journal.length) }
    }
    for (const { choice, from, tokens, finish } of choices) {
      const elements = [...tokens.map(encodeToken), ...(finish ? [encodeFinish(finish)] : [])]
      const journal = entry.journal[choice]!
      journal.push(...elements.slice(journal.length - from))
    }
    if (failed) entry.end = failed
    else if (usage) entry.end = usage
    return 'ok'
  }

  async release(held: { id: string; epoch: string }[]) {
    this.released.push(...held.map(({ id }) => id))
  }

  reap = async () => 0
  onReconnect = () => () => {}

  async doorbell(ring: () => void) {
    this.ring = ring
    return () => {}
  }

  async control(on: (message: { cancel: string }) => void) {
    this.cancel = on
    return () => {}
  }

  /** Ids of a choice in the journal, and 'F' for its finish. */
  read(id: string, choice = 0) {
    return this.entries.get(id)!.journal[choice]!.map((element) => {
      const decoded = decodeElement(element)
      return 'token' in decoded ? decoded.token.id : 'F'
    })
  }
}
