// The bytes of a command list: records of {u32 op, u32 words, u64 args[words]} as ps_exec reads them. Every argument is
// encoded as its prototype says: floats bit-cast, integers sign-extended, addresses and handles as they are.
import type { Prototype } from './header.ts'

const initialBytes = 1 << 16

export class RecordWriter {
  readonly #prototypes: Map<string, Prototype>
  #view = new DataView(new ArrayBuffer(initialBytes))
  #length = 0

  constructor(prototypes: Map<string, Prototype>) {
    this.#prototypes = prototypes
  }

  reset(): void {
    this.#length = 0
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.#view.buffer, 0, this.#length)
  }

  /** args: those of the prototype after ctx and stream. */
  add(op: string, args: number[]): void {
    const { parameters, op: id } = this.#prototypes.get(op)!
    if (args.length !== parameters.length - 2) {
      throw new TypeError(`${op} takes ${parameters.length - 2} arguments after ctx and stream, not ${args.length}`)
    }
    this.#reserve(8 + 8 * args.length)
    this.#view.setUint32(this.#length, id!, true)
    this.#view.setUint32(this.#length + 4, args.length, true)
    args.forEach((value, i) => {
      const { type, name } = parameters[i + 2]!
      this.#set(this.#length + 8 + 8 * i, type, value, `${op}: ${name}`)
    })
    this.#length += 8 + 8 * args.length
  }

  #set(at: number, type: string, value: number, label: string): void {
    if (type === 'float') {
      this.#view.setFloat32(at, value, true)
      this.#view.setUint32(at + 4, 0, true)
      return
    }
    const fits = type === 'int32_t' ? (value | 0) === value : Number.isSafeInteger(value)
    if (!fits || (value < 0 && !type.startsWith('int'))) {
      throw new RangeError(`${label} is ${value}, which is not a ${type}`)
    }
    this.#view.setUint32(at, value >>> 0, true)
    this.#view.setInt32(at + 4, Math.floor(value / 2 ** 32), true)
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#view.byteLength) return
    const grown = new ArrayBuffer(2 * (this.#view.byteLength + bytes))
    new Uint8Array(grown).set(this.bytes)
    this.#view = new DataView(grown)
  }
}
