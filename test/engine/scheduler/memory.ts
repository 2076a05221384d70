// A KV cache that is only remembered: where a model would write K and V it writes the whole prefix they depend on. So it
// sees whether a sequence would attend to anything but its own prefix, whoever shares its blocks and copies them.
import assert from 'node:assert/strict'
import type { Slice } from '../../../engine/scheduler/scheduler.ts'
import type { Sequence } from '../../../engine/scheduler/sequence.ts'

export class Memory {
  /** Of each slot, a number for the tokens up to the one whose K and V lie there. */
  readonly #slots: Float64Array
  readonly #blockSize: number

  constructor(blocks: number, blockSize: number) {
    this.#slots = new Float64Array(blocks * blockSize).fill(Number.NaN)
    this.#blockSize = blockSize
  }

  /** What the engine does in a step: copy, write the rows of all, then attend. */
  step(slices: readonly Pick<Slice, 'sequence' | 'begin' | 'count'>[], copies: readonly number[]): void {
    const size = this.#blockSize
    for (let i = 0; i < copies.length; i += 2) {
      const from = copies[i]! * size
      this.#slots.copyWithin(copies[i + 1]! * size, from, from + size)
    }
    const written = new Map<number, number>()
    const prefixes = slices.map(({ sequence }) => prefixesOf(sequence))
    for (const [i, { sequence, begin, count }] of slices.entries()) {
      for (let position = begin; position < begin + count; position++) {
        const slot = this.#slot(sequence, position)
        assert.ok(!written.has(slot), 'two rows of a step are written to one slot')
        written.set(slot, prefixes[i]![position]!)
        this.#slots[slot] = prefixes[i]![position]!
      }
    }
    for (const [i, { sequence, begin, count }] of slices.entries()) this.#attend(sequence, begin + count, prefixes[i]!)
  }

  #attend(sequence: Sequence, end: number, prefixes: Float64Array): void {
    for (let position = 0; position < end; position++) {
      if (this.#slots[this.#slot(sequence, position)] === prefixes[position]) continue
      assert.fail(`${sequence.request.id}/${sequence.choice} would attend to what is not its own at ${position}`)
    }
  }

  #slot(sequence: Sequence, position: number): number {
    return sequence.blocks.at(Math.floor(position / this.#blockSize)) * this.#blockSize + (position % this.#blockSize)
  }
}

/** Of each position, a number that stands for salt and tokens up to there. */
function prefixesOf({ request, tokens }: Sequence): Float64Array {
  let prefix = 1
  for (const character of request.salt) prefix = mix(prefix, character.charCodeAt(0))
  return Float64Array.from(tokens.view, (token) => {
    prefix = mix(prefix, token)
    return prefix
  })
}

/** 53 bits, so that two prefixes of a test do not meet. */
function mix(state: number, value: number): number {
  const low = Math.imul((state ^ value) + 0x9e3779b9, 0x85ebca6b) >>> 0
  const high = Math.imul((Math.floor(state / 2 ** 32) ^ low) + 0x7f4a7c15, 0xc2b2ae35) & 0x1fffff
  return high * 2 ** 32 + ((low ^ (low >>> 15)) >>> 0)
}
