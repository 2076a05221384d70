// The safetensors format: 8 bytes of header length (little-endian), a JSON header, then the tensors' bytes. A checkpoint
// is one such file, or several with model.safetensors.index.json. Called by load.ts and files.ts.
//
// Files are untrusted. A header is accepted only if it describes every byte of the file exactly once: whoever reads
// through the entries below cannot leave the file, and a cut, padded or overlapping one is an error that names it.
import { z } from 'zod'
import { checkJson, parseJson, show } from './json.ts'
import { type FileEntry, ModelError, type Source } from './source.ts'

export type TensorEntry = {
  name: string
  file: string
  dtype: string
  shape: readonly number[]
  /** Bytes [begin, end) of the file. */
  begin: number
  end: number
}

const maxHeaderBytes = 100_000_000
const indexFile = 'model.safetensors.index.json'

const elementBytes: Record<string, number> = Object.fromEntries(
  [
    ['BOOL', 'U8', 'I8', 'F8_E4M3', 'F8_E5M2', 'F8_E8M0'].map((dtype) => [dtype, 1]),
    ['U16', 'I16', 'F16', 'BF16'].map((dtype) => [dtype, 2]),
    ['U32', 'I32', 'F32'].map((dtype) => [dtype, 4]),
    ['U64', 'I64', 'F64'].map((dtype) => [dtype, 8]),
  ].flat(),
)
const maxDimensions = 8

const Index = z.looseObject({ weight_map: z.record(z.string(), z.string()) })

/** Every tensor of the checkpoint by name; reads the headers only. */
export async function readTensors(source: Source): Promise<Map<string, TensorEntry>> {
  const files = new Map((await source.list()).map((entry) => [entry.name, entry]))
  if (files.has(indexFile)) return readShards(source, files)
  const [file, ...others] = [...files.values()].filter((entry) => entry.name.endsWith('.safetensors'))
  if (!file) {
    throw new ModelError(`${source.name} has no *.safetensors; other weight formats are not read, convert the model`)
  }
  const single = files.get('model.safetensors') ?? (others.length === 0 ? file : undefined)
  if (!single) throw new ModelError(`${source.name}: several *.safetensors files, but no ${indexFile} that joins them`)
  return new Map((await readHeader(source, single)).map((tensor) => [tensor.name, tensor]))
}

async function readShards(source: Source, files: Map<string, FileEntry>): Promise<Map<string, TensorEntry>> {
  const index = checkJson(indexFile, Index, parseJson(indexFile, await source.text(indexFile)))
  const placed = Object.entries(index.weight_map)
  const shards = [...new Set(placed.map(([, file]) => file))].map((file) => {
    const entry = files.get(file)
    if (!entry) throw new ModelError(`${indexFile} names ${file}, which ${source.name} does not have`)
    return entry
  })
  const headers = await Promise.all(shards.map((entry) => readHeader(source, entry)))
  const tensors = new Map(headers.flat().map((tensor) => [`${tensor.file}/${tensor.name}`, tensor]))
  return new Map(
    placed.map(([name, file]) => {
      const tensor = tensors.get(`${file}/${name}`)
      if (!tensor) throw new ModelError(`${indexFile} places ${name} in ${file}, which does not hold it`)
      return [name, tensor]
    }),
  )
}

/** The tensors of one file, in the order of their bytes. */
export async function readHeader(source: Source, { name: file, bytes }: FileEntry): Promise<TensorEntry[]> {
  if (bytes < 8) throw new ModelError(`${file} has ${bytes} bytes, too few for a safetensors file`)
  const prefix = await source.read(file, 0, 8)
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true)
  if (length > maxHeaderBytes)
    throw new ModelError(`${file}: header length ${length} is above ${maxHeaderBytes}; not a safetensors file`)
  const dataBegin = 8 + Number(length)
  if (dataBegin > bytes)
    throw new ModelError(
      `${file}: header length ${length} reaches beyond the file's ${bytes} bytes; the file was cut short`,
    )
  return parseHeader(file, await source.read(file, 8, dataBegin), dataBegin, bytes)
}

function parseHeader(file: string, json: Uint8Array, dataBegin: number, fileBytes: number): TensorEntry[] {
  const header = parseJson(`${file}: header`, decodeUtf8(file, json))
  if (!isRecord(header)) throw new ModelError(`${file}: header is not a JSON object`)
  const tensors = Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, described]) => parseTensor(file, name, described, dataBegin))
    .sort((a, b) => a.begin - b.begin || a.end - b.end)
  let expected = dataBegin
  for (const { name, begin, end } of tensors) {
    if (begin !== expected)
      throw invalid(file, name, `begins at byte ${begin}, ${expected} is expected: tensors must follow each other`)
    if (end > fileBytes)
      throw invalid(file, name, `ends at byte ${end}, the file has ${fileBytes}; the file was cut short`)
    expected = end
  }
  if (expected !== fileBytes) throw new ModelError(`${file}: ${fileBytes - expected} bytes after the last tensor`)
  return tensors
}

function parseTensor(file: string, name: string, described: unknown, dataBegin: number): TensorEntry {
  if (!isRecord(described)) throw invalid(file, name, 'is not described by an object')
  const { dtype, shape, data_offsets: offsets } = described
  if (typeof dtype !== 'string' || !Object.hasOwn(elementBytes, dtype))
    throw invalid(file, name, `has unknown dtype ${show(dtype)}`)
  if (!isSizes(shape)) throw invalid(file, name, `shape ${show(shape)} is not a list of sizes`)
  if (!isSizes(offsets) || offsets.length !== 2)
    throw invalid(file, name, `data_offsets ${show(offsets)} is not [begin, end]`)
  const [begin, end] = offsets as [number, number]
  const bytes = shape.reduce((product, size) => product * BigInt(size), BigInt(elementBytes[dtype]!))
  if (BigInt(end) - BigInt(begin) !== bytes) {
    throw invalid(file, name, `${dtype} ${show(shape)} takes ${bytes} bytes, but data_offsets give ${end - begin}`)
  }
  return { name, file, dtype, shape, begin: dataBegin + begin, end: dataBegin + end }
}

function invalid(file: string, tensor: string, problem: string): ModelError {
  return new ModelError(`${file}: tensor ${show(tensor)} ${problem}`)
}

function decodeUtf8(file: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new ModelError(`${file}: header is not UTF-8`)
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isSizes(value: unknown): value is number[] {
  return (
    Array.isArray(value) &&
    value.length <= maxDimensions &&
    value.every((size) => Number.isSafeInteger(size) && size >= 0)
  )
}
