// Stop strings of one sequence. Text goes in piece by piece and comes out as soon as it can no longer become part of
// a stop string; the longest suffix that begins one is withheld. The match that is complete first ends the text;
// of those complete at the same character, the longest counts. So the result is a function of the text alone, not of
// how tokens cut it.
export class StopStrings {
  /** The stop string that ended the text, or null. */
  matched: string | null = null
  #stops: string[]
  #include: boolean
  #held = ''
  /** Longest beginning of a stop string that is not the whole of it. */
  #reach: number

  constructor(stops: readonly string[], options: { include: boolean }) {
    // Decoded text is well-formed, so a stop string with half a surrogate pair can never occur in it.
    this.#stops = stops.filter((stop) => stop !== '' && stop.isWellFormed())
    this.#include = options.include
    this.#reach = Math.max(0, ...this.#stops.map((stop) => stop.length - 1))
  }

  /** The text that `text` sets free. With `mayStop` false (min_tokens) matches that end inside `text` do not count. */
  push(text: string, mayStop = true): string {
    if (this.#stops.length === 0) return text
    const all = this.#held + text
    if (mayStop) {
      const match = this.#firstMatch(all, this.#held.length)
      if (match) {
        this.matched = match.stop
        this.#held = ''
        return all.slice(0, this.#include ? match.end : match.end - match.stop.length)
      }
    }
    const keep = all.length - this.#beginning(all)
    this.#held = all.slice(keep)
    return all.slice(0, keep)
  }

  /** End of the sequence without a match: what was withheld. */
  flush(): string {
    const text = this.#held
    this.#held = ''
    return text
  }

  /** Of the matches that end after `seen`. */
  #firstMatch(text: string, seen: number): { stop: string; end: number } | null {
    let best: { stop: string; end: number } | null = null
    for (const stop of this.#stops) {
      const at = text.indexOf(stop, Math.max(0, seen - stop.length + 1))
      if (at < 0) continue
      const end = at + stop.length
      if (!best || end < best.end || (end === best.end && stop.length > best.stop.length)) best = { stop, end }
    }
    return best
  }

  /** Length of the longest suffix of `text` that is the beginning of a stop string. */
  #beginning(text: string): number {
    for (let at = Math.max(0, text.length - this.#reach); at < text.length; at++) {
      for (const stop of this.#stops) {
        const length = text.length - at
        if (stop.length > length && text.charCodeAt(at) === stop.charCodeAt(0) && text.endsWith(stop.slice(0, length)))
          return length
      }
    }
    return 0
  }
}
