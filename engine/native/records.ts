// The bytes of a command list: records of {u32 op, u32 words, u64 args[words]} as ps_exec reads them. Every argument is
// encoded as its prototype says: floats bit-cast, integers sign-extended, addresses and handles as they are. A step adds
// hundreds of records, so nothing is allocated for one and prototypes are looked at once.
import type { Prototype } from './header.ts'

const initialWords = 1 << 14

type Kind = 'float' | 'int32' | 'int64' | 'unsigned'
type Layout = { op: number; kinds: Kind[]; names: string[] }

export class RecordWriter {
  readonly #layouts: Map<string, Layout>
  #words = new Uint32Array(initialWords)
  #floats = new Float32Array(this.#words.buffer)
  #length = 0

  constructor(prototypes: Map<string, Prototype>) {
    this.#layouts = new Map([...prototypes].map(([name, prototype]) => [name, layoutOf(prototype)]))
  }

  reset(): void {
    this.#length = 0
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.#words.buffer, 0, 4 * this.#length)
  }

  /** args: those of the prototype after ctx and stream. */
  add(name: string, args: readonly number[]): void {
    const { op, kinds, names } = this.#layouts.get(name)!
    const count = args.length
    if (count !== kinds.length) {
      throw new TypeError(`${name} takes ${kinds.length} arguments after ctx and stream, not ${count}`)
    }
    let at = this.#length
    this.#length += 2 + 2 * count
    if (this.#length > this.#words.length) this.#grow()
    const words = this.#words
    words[at] = op
    words[at + 1] = count
    for (let i = 0; i < count; i++) {
      at += 2
      const value = args[i]!
      const kind = kinds[i]!
      if (kind === 'float') {
        this.#floats[at] = value
        words[at + 1] = 0
        continue
      }
      if (!fits(kind, value)) throw new RangeError(`${name}: ${names[i]} is ${value}, which is not a ${typeOf(kind)}`)
      // A store keeps the low 32 bits, of a negative number its two's complement.
      words[at] = value
      words[at + 1] = Math.floor(value / 2 ** 32)
    }
  }

  #grow(): void {
    const grown = new Uint32Array(2 * this.#length)
    grown.set(this.#words)
    this.#words = grown
    this.#floats = new Float32Array(grown.buffer)
  }
}

function layoutOf({ op, parameters }: Prototype): Layout {
  const own = parameters.slice(2)
  return { op: op ?? 0, kinds: own.map(({ type }) => kindOf(type)), names: own.map(({ name }) => name) }
}

function kindOf(type: string): Kind {
  if (type === 'float') return 'float'
  if (type === 'int32_t') return 'int32'
  return type === 'int64_t' ? 'int64' : 'unsigned'
}

const typeOf = (kind: Kind) => ({ float: 'float', int32: 'int32_t', int64: 'int64_t', unsigned: 'uint64_t' })[kind]

function fits(kind: Kind, value: number): boolean {
  if (kind === 'int32') return (value | 0) === value
  return Number.isSafeInteger(value) && (value >= 0 || kind === 'int64')
}
