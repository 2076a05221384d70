// A model with random weights, for measuring a shape without its checkpoint (--load-format dummy): a folder with a
// config.json becomes a Source with a model.safetensors that is made up as it is read. The same configuration gives the
// same weights everywhere. Without a tokenizer.json a token is a byte, and whatever lies beyond the bytes gets a name, so
// that every id has a text. Called by engine/load.ts.
//
// Weights are bfloat16, of magnitudes that keep activations near 1 through any number of layers; norms are 1.
import { type ModelConfig, parseModelConfig } from '../models/config.ts'
import { decodeText, openFolder, sizeOf } from './folder.ts'
import { parseJson } from './json.ts'
import type { FileEntry, Source } from './source.ts'
import { ModelError, SourceError } from './source.ts'

type Shape = { name: string; shape: number[] }
type Placed = Shape & { begin: number; end: number; fill: (index: number) => number }

const weightFile = 'model.safetensors'
const tokenizerFile = 'tokenizer.json'
const BF16_ONE = 0x3f80

/** `survey` gives the tensors that a configuration asks for (models/index.ts). */
export async function openDummy(path: string, survey: (config: ModelConfig) => Shape[]): Promise<Source> {
  const folder = await openFolder(path, assertConfig)
  const kept = (await folder.list()).filter(({ name }) => !/\.safetensors(\.index\.json)?$/.test(name))
  let config: ModelConfig
  try {
    config = parseModelConfig(parseJson('config.json', await folder.text('config.json')))
  } catch (error) {
    await folder.close()
    throw error
  }
  const weights = createFile(survey(config))
  const made = new Map<string, (begin: number, end: number) => Uint8Array>([[weightFile, weights.read]])
  const entries: FileEntry[] = [...kept, { name: weightFile, bytes: weights.bytes }]
  if (!kept.some(({ name }) => name === tokenizerFile)) {
    const tokenizer = Buffer.from(byteTokenizer(path, config.vocabularySize))
    made.set(tokenizerFile, (begin, end) => tokenizer.subarray(begin, end))
    entries.push({ name: tokenizerFile, bytes: tokenizer.length })
  }
  const read = async (file: string, begin: number, end: number) =>
    made.get(file)?.(begin, end) ?? folder.read(file, begin, end)
  return {
    ...folder,
    list: async () => entries,
    read,
    text: async (file) => decodeText(file, await read(file, 0, sizeOf(path, entries, file))),
  }
}

function assertConfig(where: string, entries: FileEntry[]): void {
  if (entries.some(({ name }) => name === 'config.json')) return
  throw new SourceError('invalid', `${where} has no config.json; --load-format dummy needs one to know the shape`)
}

/** A safetensors file that exists nowhere: its header, and bytes by their place. */
function createFile(tensors: Shape[]): { bytes: number; read(begin: number, end: number): Uint8Array } {
  const described: Record<string, unknown> = {}
  let size = 0
  for (const { name, shape } of tensors) {
    const bytes = 2 * shape.reduce((product, length) => product * length, 1)
    described[name] = { dtype: 'BF16', shape, data_offsets: [size, size + bytes] }
    size += bytes
  }
  const json = JSON.stringify(described)
  // Data begins at an even byte, so that no element is cut.
  const text = Buffer.from(json.padEnd(8 * Math.ceil(Buffer.byteLength(json) / 8)))
  const header = Buffer.alloc(8 + text.length)
  header.writeBigUInt64LE(BigInt(text.length))
  header.set(text, 8)

  let at = header.length
  const placed = tensors.map(({ name, shape }): Placed => {
    const begin = at
    at += 2 * shape.reduce((product, length) => product * length, 1)
    return { name, shape, begin, end: at, fill: filler(name, shape) }
  })
  const read = (begin: number, end: number) => {
    const bytes = new Uint8Array(end - begin)
    if (begin < header.length) bytes.set(header.subarray(begin, end))
    for (const tensor of placed) {
      if (tensor.begin < end && tensor.end > begin) copyElements(bytes, begin, tensor)
    }
    return bytes
  }
  return { bytes: at, read }
}

/** What of the tensor lies in `bytes`, which begin at byte `from` of the file. */
function copyElements(bytes: Uint8Array, from: number, { begin, end, fill }: Placed): void {
  const first = Math.floor(Math.max(0, from - begin) / 2)
  const last = Math.ceil((Math.min(end, from + bytes.length) - begin) / 2)
  for (let i = first, at = begin + 2 * first - from; i < last; i++, at += 2) {
    const element = fill(i)
    if (at >= 0) bytes[at] = element & 0xff
    if (at + 1 < bytes.length) bytes[at + 1] = element >> 8
  }
}

/** Element -> bits: norms are 1, the rest random with magnitudes in [s, 2 s), 1.5 s near 1 / sqrt(columns). */
function filler(name: string, shape: number[]): (index: number) => number {
  const columns = shape[1]
  if (columns === undefined && name.endsWith('norm.weight')) return () => BF16_ONE
  const exponent = 127 + Math.round(Math.log2(0.66 / Math.sqrt(columns ?? 4096)))
  const seed = hashName(name)
  // Sign and mantissa are random: 0x807f. The mix is that of MurmurHash3.
  return (index) => {
    let bits = Math.imul(index ^ seed, 0x85ebca6b)
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35)
    return ((bits ^ (bits >>> 16)) & 0x807f) | (exponent << 7)
  }
}

function hashName(name: string): number {
  let hash = 0x811c9dc5
  for (const character of name) hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193)
  return hash
}

/** Ids 0 to 255 are the bytes; the others, which no text becomes, are words like " w1a3". */
function byteTokenizer(path: string, vocabularySize: number): string {
  if (vocabularySize < 256) {
    throw new ModelError(`${path}: a vocabulary of ${vocabularySize} cannot hold every byte; add a tokenizer.json`)
  }
  const vocab: Record<string, number> = {}
  for (let id = 0; id < vocabularySize; id++) vocab[id < 256 ? byteCharacter(id) : `Ġw${id.toString(36)}`] = id
  const level = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: false, use_regex: false }
  return JSON.stringify({
    version: '1.0',
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: level,
    post_processor: null,
    decoder: level,
    model: { type: 'BPE', vocab, merges: [] },
  })
}

/** GPT-2's alphabet: printable bytes are themselves, the others follow from U+0100 on in their order. */
function byteCharacter(byte: number): string {
  const isPrintable = (value: number) =>
    (value >= 0x21 && value <= 0x7e) || (value >= 0xa1 && value <= 0xac) || value >= 0xae
  if (isPrintable(byte)) return String.fromCharCode(byte)
  let moved = 0
  for (let value = 0; value < byte; value++) if (!isPrintable(value)) moved++
  return String.fromCharCode(0x100 + moved)
}
