// What the layers take from a checkpoint: `weights.in('self_attn')` is a folder of names, and matrix() and vector() make
// device memory of the right shape and note which tensor fills which of its rows. finish() then reads the files once.
// A tensor that is missing, has another shape or is left over is refused before any weight is read.
import type { Device, DType } from '../native/device.ts'
import type { Tensor, Weight } from '../native/tensor.ts'
import type { Target, WeightReader } from '../weights/load.ts'
import type { TensorEntry } from '../weights/safetensors.ts'
import { ModelError } from '../weights/source.ts'

/** Rows of a fused matrix or vector by the checkpoint's names, { gate_proj: 144, up_proj: 144 }; '' is the folder itself. */
export type Parts = Record<string, number>

/** A buffer that old checkpoints carry and nobody needs: it follows from config.json. */
const derived = /\.rotary_emb\.inv_freq$/

/** What is asked of a checkpoint while the layers are made, and of the device. */
export type Checkpoint = Pick<WeightReader, 'source' | 'tensors' | 'find' | 'load'>
export type Memory = Pick<Device, 'alloc' | 'weight'>
/** In memory: of the matrices of the layers, and of those that stay whole when they are quantised. */
export type MatrixDTypes = { whole: DType; multiplied: DType }

/** One for all the folders of a checkpoint. */
type Plan = { targets: Target[]; memory: (Weight | Tensor)[]; ignored: Set<string> }

export class Weights {
  readonly #device: Memory
  readonly #dtypes: MatrixDTypes
  readonly #reader: Checkpoint
  readonly #prefix: string
  readonly #plan: Plan

  constructor(
    device: Memory,
    dtypes: MatrixDTypes,
    reader: Checkpoint,
    prefix = '',
    plan: Plan = { targets: [], memory: [], ignored: new Set() },
  ) {
    this.#device = device
    this.#dtypes = dtypes
    this.#reader = reader
    this.#prefix = prefix
    this.#plan = plan
  }

  in(name: string): Weights {
    return new Weights(this.#device, this.#dtypes, this.#reader, `${this.#prefix}${name}.`, this.#plan)
  }

  /** [sum of the parts, k]: the parts' rows below each other. */
  matrix(parts: Parts, k: number, dtype = this.#dtypes.multiplied): Weight {
    const placed = this.#place(parts, 'weight', (n) => [n, k])
    const weight = this.#keep(this.#device.weight(sum(parts), k, dtype))
    for (const { tensor, first } of placed) {
      const source = sourceDType(tensor)
      const take = (row: number, rows: number, bytes: Uint8Array) => {
        assertFinite(tensor, row, toFloat32(tensor, bytes.subarray(0, bytes.length / rows)))
        weight.load(first + row, rows, bytes, source)
      }
      this.#plan.targets.push({ tensor, take })
    }
    return weight
  }

  /** f32 [sum of the parts], whatever the matrices are: norms and biases are applied in full precision. */
  vector(parts: Parts, leaf: 'weight' | 'bias'): Tensor {
    const placed = this.#place(parts, leaf, (n) => [n])
    const vector = this.#keep(this.#device.alloc([sum(parts)], 'f32'))
    for (const { tensor, first } of placed) {
      const take = (row: number, _: number, bytes: Uint8Array) => {
        const values = toFloat32(tensor, bytes)
        assertFinite(tensor, row, values)
        vector.write(values, first + row)
      }
      this.#plan.targets.push({ tensor, take })
    }
    return vector
  }

  /** A tensor that may be there and is not wanted. */
  ignore(name: string): void {
    this.#plan.ignored.add(this.#prefix + name)
  }

  async finish(): Promise<void> {
    const wanted = new Set(this.#plan.targets.map(({ tensor }) => tensor.name))
    const unexpected = [...this.#reader.tensors.keys()].filter(
      (name) => !wanted.has(name) && !this.#plan.ignored.has(name) && !derived.test(name),
    )
    if (unexpected.length > 0) {
      const more = unexpected.length > 3 ? ` and ${unexpected.length - 3} more` : ''
      throw new ModelError(
        `${this.#reader.source.name}: tensors that the architecture in config.json does not have: ${unexpected.slice(0, 3).join(', ')}${more}`,
      )
    }
    await this.#reader.load(this.#plan.targets)
    this.#plan.targets = []
  }

  get bytes(): number {
    return this.#plan.memory.reduce((total, { bytes }) => total + bytes, 0)
  }

  free(): void {
    for (const memory of this.#plan.memory) memory.free()
    this.#plan.memory = []
  }

  #keep<Memory extends Weight | Tensor>(memory: Memory): Memory {
    this.#plan.memory.push(memory)
    return memory
  }

  /** The parts' tensors, of the right shape, and the first row that each fills. */
  #place(parts: Parts, leaf: string, shapeOf: (n: number) => number[]): { tensor: TensorEntry; first: number }[] {
    let next = 0
    return Object.entries(parts).map(([part, n]) => {
      const tensor = this.#find(this.#prefix + (part ? `${part}.` : '') + leaf, shapeOf(n))
      const first = next
      next += n
      return { tensor, first }
    })
  }

  #find(name: string, shape: number[]): TensorEntry {
    const tensor = this.#reader.find(name, shape)
    if (!tensor) throw new ModelError(`${this.#reader.source.name}: tensor ${name} is missing; config.json asks for it`)
    if (tensor.shape.length !== shape.length || shape.some((size, i) => size !== tensor.shape[i])) {
      throw new ModelError(
        `${tensor.file}: tensor ${name} has shape [${tensor.shape}], config.json asks for [${shape}]`,
      )
    }
    sourceDType(tensor)
    return tensor
  }
}

function sum(parts: Parts): number {
  return Object.values(parts).reduce((total, rows) => total + rows, 0)
}

function sourceDType({ file, name, dtype }: TensorEntry): 'f32' | 'f16' | 'bf16' {
  if (dtype === 'F32') return 'f32'
  if (dtype === 'F16') return 'f16'
  if (dtype === 'BF16') return 'bf16'
  throw new ModelError(`${file}: tensor ${name} has dtype ${dtype}, which is not supported; supported: F32, F16, BF16`)
}

/** Vectors are looked at whole, matrices at one row per piece: a broken training or a broken disk shows there too. */
function assertFinite({ file, name }: TensorEntry, row: number, values: Float32Array): void {
  if (!values.every(Number.isFinite)) throw new ModelError(`${file}: tensor ${name}, row ${row}: not a finite number`)
}

function toFloat32(tensor: TensorEntry, bytes: Uint8Array): Float32Array {
  // A copy, because a piece of a file need not be aligned. (slice() of a Buffer would not copy.)
  const { buffer } = new Uint8Array(bytes)
  switch (sourceDType(tensor)) {
    case 'f32':
      return new Float32Array(buffer)
    case 'f16':
      return Float32Array.from(new Float16Array(buffer))
    case 'bf16':
      return new Float32Array(Uint32Array.from(new Uint16Array(buffer), (half) => half << 16).buffer)
  }
}
