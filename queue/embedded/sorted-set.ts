// A ZSET: members ordered by (score, member bytes). An array kept sorted: reads are what scripts do most, and moving a
// few thousand references on insertion costs less than a tree's pointers.

type Item = { member: string; score: number }
export type Bound = { score: number; exclusive: boolean }

export class SortedSet {
  readonly #scores = new Map<string, number>()
  readonly #items: Item[] = []

  get size(): number {
    return this.#items.length
  }

  score(member: string): number | undefined {
    return this.#scores.get(member)
  }

  /** True if the member is new. */
  set(member: string, score: number): boolean {
    const isNew = !this.delete(member)
    this.#scores.set(member, score)
    this.#items.splice(this.#position(member, score), 0, { member, score })
    return isNew
  }

  delete(member: string): boolean {
    const score = this.#scores.get(member)
    if (score === undefined) return false
    this.#scores.delete(member)
    this.#items.splice(this.#position(member, score), 1)
    return true
  }

  copy(): SortedSet {
    const copy = new SortedSet()
    for (const [member, score] of this.#scores) copy.#scores.set(member, score)
    copy.#items.push(...this.#items)
    return copy
  }

  /** Ranks from 0, both inclusive, negative from the end. */
  range(start: number, stop: number): Item[] {
    const { length } = this.#items
    const from = start < 0 ? Math.max(0, length + start) : start
    const to = stop < 0 ? length + stop : stop
    return this.#items.slice(from, Math.max(from, to + 1))
  }

  rangeByScore(min: Bound, max: Bound): Item[] {
    const from = this.#firstAbove(min.score, min.exclusive)
    const to = this.#firstAbove(max.score, !max.exclusive)
    return this.#items.slice(from, Math.max(from, to))
  }

  /** The rank at which (score, member) is or would be. */
  #position(member: string, score: number): number {
    return this.#search((item) => item.score < score || (item.score === score && item.member < member))
  }

  #firstAbove(score: number, exclusive: boolean): number {
    return this.#search((item) => item.score < score || (exclusive && item.score === score))
  }

  /** The rank of the first item that is not before. */
  #search(isBefore: (item: Item) => boolean): number {
    let low = 0
    let high = this.#items.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (isBefore(this.#items[middle]!)) low = middle + 1
      else high = middle
    }
    return low
  }
}
