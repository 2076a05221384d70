// A STREAM: entries in id order and consumer groups, each with the last id it delivered and its pending entries.
import { RedisError } from './reply.ts'

export type StreamId = { ms: number; seq: number }
type Entry = { id: StreamId; fields: string[] }
type Group = { delivered: StreamId; pending: Map<string, { id: StreamId; consumer: string }> }

const zero: StreamId = { ms: 0, seq: 0 }
const compare = (a: StreamId, b: StreamId): number => a.ms - b.ms || a.seq - b.seq
export const idText = ({ ms, seq }: StreamId): string => `${ms}-${seq}`

/** `ms` or `ms-seq`; `missing` is the sequence number of the short form. */
export function parseId(text: string, missing: number): StreamId {
  const match = /^(\d{1,15})(?:-(\d{1,15}))?$/.exec(text)
  if (!match) throw new RedisError('ERR Invalid stream ID specified as stream command argument')
  return { ms: Number(match[1]), seq: match[2] === undefined ? missing : Number(match[2]) }
}

export class StreamLog {
  readonly #entries: Entry[] = []
  #last = zero
  readonly groups = new Map<string, Group>()

  get length(): number {
    return this.#entries.length
  }

  add(id: StreamId, fields: string[]): void {
    if (compare(id, this.#last) <= 0) {
      throw new RedisError('ERR The ID specified in XADD is equal or smaller than the target stream top item')
    }
    this.#last = id
    this.#entries.push({ id, fields })
  }

  delete(id: StreamId): boolean {
    const at = this.#firstAtOrAfter(id)
    const entry = this.#entries[at]
    if (!entry || compare(entry.id, id) !== 0) return false
    this.#entries.splice(at, 1)
    return true
  }

  range(start: StreamId, startExclusive: boolean, end: StreamId, endExclusive: boolean, count: number): Entry[] {
    const found: Entry[] = []
    for (let i = this.#firstAtOrAfter(start); i < this.#entries.length && found.length < count; i++) {
      const entry = this.#entries[i]!
      if (startExclusive && compare(entry.id, start) === 0) continue
      const order = compare(entry.id, end)
      if (order > 0 || (endExclusive && order === 0)) break
      found.push(entry)
    }
    return found
  }

  createGroup(name: string, from: string): void {
    if (this.groups.has(name)) throw new RedisError('BUSYGROUP Consumer Group name already exists')
    this.groups.set(name, { delivered: from === '$' ? this.#last : parseId(from, 0), pending: new Map() })
  }

  /** The next entries the group has not delivered; they become pending for the consumer. */
  readNew(group: Group, consumer: string, count: number): Entry[] {
    const entries = this.range(group.delivered, true, { ms: Infinity, seq: Infinity }, false, count)
    for (const { id } of entries) {
      group.delivered = id
      group.pending.set(idText(id), { id, consumer })
    }
    return entries
  }

  copy(): StreamLog {
    const copy = new StreamLog()
    copy.#entries.push(...this.#entries)
    copy.#last = this.#last
    for (const [name, { delivered, pending }] of this.groups) {
      copy.groups.set(name, { delivered, pending: new Map(pending) })
    }
    return copy
  }

  #firstAtOrAfter(id: StreamId): number {
    let low = 0
    let high = this.#entries.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (compare(this.#entries[middle]!.id, id) < 0) low = middle + 1
      else high = middle
    }
    return low
  }
}
