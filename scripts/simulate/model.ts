// A model without weights. What it keeps per KV slot is a hash of all tokens up to there, chained through the block
// table, so a block given to two sequences or found by the wrong prefix changes the text, as it would in a real cache.
//
// The token is a function of those hashes, the seed and the choice. Deterministic engines give the same one; the others
// put the number of their process life into it, so every token tells who made it and after which history: text mixed
// of two histories is seen at its first token.
import { Vocab } from '../../engine/output/vocab.ts'
import type { Slice } from '../../engine/scheduler/scheduler.ts'
import type { Sequence } from '../../engine/scheduler/sequence.ts'
import type { Sampling } from '../../queue/job.ts'

const SHAPES = 64
const LIVES = 8
/** Every shape with the number 0 ends a sequence. */
const EOS = 0

export const vocabularySize = SHAPES * LIVES
export const eosTokenIds = Array.from({ length: LIVES }, (_, life) => life * SHAPES + EOS)
/** Few letters, so that stop strings occur. */
export const LETTERS = 'abcdefgh'
/** The bytes of é and € (as ByteLevel writes them) in tokens of their own, so that characters are cut. */
const CUTS = ['Ã', '©', '¨', 'â', 'Ĥ', '¬', 'aÃ', '©b']

export const vocab = new Vocab(
  JSON.stringify({
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(Array.from({ length: vocabularySize }, (_, id) => [name(id), id])),
    },
    decoder: { type: 'ByteLevel' },
  }),
)

/** Names differ, hence the number of the life in all but the first. */
function name(id: number): string {
  const shape = id % SHAPES
  const life = id < SHAPES ? '' : String((id - shape) / SHAPES)
  if (shape >= SHAPES - CUTS.length) return life + CUTS[shape - SHAPES + CUTS.length]
  return LETTERS[shape % 8]! + (shape < 8 ? '' : LETTERS[shape >> 3]!) + life
}

const START = 0x9e3779b9 | 0

function mix(hash: number, value: number): number {
  let h = Math.imul(hash ^ value, 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) | 0
}

function sample(history: number, sampling: Sampling, choice: number, life: number): number {
  const drawn = mix(mix(history, Number(sampling.seed) | 0), choice + 1)
  return life * SHAPES + ((drawn >>> 7) % SHAPES)
}

/** Of one engine life; `life` is 0 for all where they are deterministic. */
export class Model {
  readonly #life: number
  readonly #blockSize: number
  readonly #kv: Int32Array

  constructor(options: { life: number; numBlocks: number; blockSize: number }) {
    this.#life = options.life % LIVES
    this.#blockSize = options.blockSize
    this.#kv = new Int32Array(options.numBlocks * options.blockSize)
  }

  /** Before the step computes: pairs of blocks, from and to. */
  copyBlocks(pairs: readonly number[]): void {
    for (let i = 0; i < pairs.length; i += 2) {
      const [from, to] = [pairs[i]! * this.#blockSize, pairs[i + 1]! * this.#blockSize]
      this.#kv.copyWithin(to, from, from + this.#blockSize)
    }
  }

  /** Computes a slice: what its logits depend on. */
  forward({ sequence, begin, count }: Slice): number {
    const { blocks, tokens } = sequence
    const slot = (position: number) =>
      blocks.at(Math.floor(position / this.#blockSize)) * this.#blockSize + (position % this.#blockSize)
    let hash = begin === 0 ? START : this.#kv[slot(begin - 1)]!
    for (let position = begin; position < begin + count; position++) {
      hash = mix(hash, tokens.at(position))
      this.#kv[slot(position)] = hash
    }
    return hash
  }

  sample(history: number, { request, choice }: Sequence): number {
    return sample(history, request.sampling, choice, this.#life)
  }
}

/** What may follow: walks along a choice's tokens and says of each whether an engine could have given it there. */
export class Oracle {
  readonly #sampling: Sampling
  readonly #choice: number
  readonly #isDeterministic: boolean
  #hash: number

  constructor(prompt: Uint32Array, sampling: Sampling, choice: number, isDeterministic: boolean) {
    this.#sampling = sampling
    this.#choice = choice
    this.#isDeterministic = isDeterministic
    this.#hash = prompt.reduce(mix, START)
  }

  accepts(token: number): boolean {
    const expected = sample(this.#hash, this.#sampling, this.#choice, 0)
    this.#hash = mix(this.#hash, token)
    return this.#isDeterministic ? token === expected : token % SHAPES === expected
  }
}
