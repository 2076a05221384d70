// Reads a checkpoint once, from front to back, in pieces of a few MiB with some reads in flight, and hands each run of
// rows to whoever asked for that tensor (models/weights.ts). No file is ever held in memory: a 16 GB checkpoint needs
// `readsInFlight` pieces. Which tensors exist is known from the headers before the first piece is read.
import type { TensorEntry } from './safetensors.ts'
import type { Progress, Source } from './source.ts'

/** Who wants a tensor: gets all its rows in ascending order, `rows` at a time, in the file's dtype. */
export type Target = { tensor: TensorEntry; take(row: number, rows: number, bytes: Uint8Array): void }

/** Whole rows of one tensor, at `offset` in a piece. */
type Run = { target: Target; row: number; rows: number; offset: number }
type Piece = { file: string; begin: number; end: number; runs: Run[] }

const pieceBytes = 16 * 2 ** 20
const readsInFlight = 4

export class WeightReader {
  readonly source: Source
  readonly tensors: ReadonlyMap<string, TensorEntry>
  #onProgress: (progress: Progress) => void

  constructor(
    source: Source,
    tensors: ReadonlyMap<string, TensorEntry>,
    onProgress: (progress: Progress) => void = () => {},
  ) {
    this.source = source
    this.tensors = tensors
    this.#onProgress = onProgress
  }

  /** The tensor of that name; whether its shape is the one asked for is for the caller to see. */
  find(name: string, _shape: readonly number[]): TensorEntry | undefined {
    return this.tensors.get(name)
  }

  async load(targets: Target[]): Promise<void> {
    const pieces = cut(targets)
    const total = pieces.reduce((sum, piece) => sum + piece.end - piece.begin, 0)
    let done = 0
    let next = 0
    const reads: Promise<Uint8Array>[] = []
    for (const piece of pieces) {
      while (next < pieces.length && reads.length < readsInFlight) reads.push(this.#read(pieces[next++]!))
      const bytes = await reads.shift()!
      for (const { target, row, rows, offset } of piece.runs) {
        target.take(row, rows, bytes.subarray(offset, offset + rows * rowBytes(target.tensor)))
      }
      done += bytes.length
      this.#onProgress({ file: piece.file, bytes: done, total })
    }
  }

  #read({ file, begin, end }: Piece): Promise<Uint8Array> {
    const reading = this.source.read(file, begin, end)
    // A read that fails behind one that failed before it has nobody waiting for it.
    reading.catch(() => {})
    return reading
  }
}

/** Rows in file order, neighbours together, so that small tensors do not cost a read each. */
function cut(targets: Target[]): Piece[] {
  const ordered = targets
    .filter(({ tensor }) => tensor.end > tensor.begin)
    .sort((a, b) => compare(a.tensor.file, b.tensor.file) || a.tensor.begin - b.tensor.begin)
  const pieces: Piece[] = []
  for (const target of ordered) {
    const { file, begin, shape } = target.tensor
    const bytes = rowBytes(target.tensor)
    const height = shape[0] ?? 1
    for (let row = 0; row < height; ) {
      const at = begin + row * bytes
      const last = pieces.at(-1)
      const open = last && last.file === file && last.end === at && at + bytes - last.begin <= pieceBytes
      const piece = open ? last : { file, begin: at, end: at, runs: [] }
      if (!open) pieces.push(piece)
      const rows = Math.min(height - row, Math.max(1, Math.floor((pieceBytes - (at - piece.begin)) / bytes)))
      piece.runs.push({ target, row, rows, offset: at - piece.begin })
      piece.end = at + rows * bytes
      row += rows
    }
  }
  return pieces
}

function rowBytes({ begin, end, shape }: TensorEntry): number {
  return (end - begin) / (shape[0] ?? 1)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
