// A model that lies in memory: the Source of the tests that need damaged or invented files.
import type { Source } from '../../../engine/weights/source.ts'

export function memorySource(files: Record<string, Uint8Array | string>): Source & { reads: number } {
  const bytesOf = (file: string) => {
    const content = files[file]
    if (content === undefined) throw new Error(`no file ${file}`)
    return typeof content === 'string' ? new TextEncoder().encode(content) : content
  }
  return {
    name: 'memory',
    reads: 0,
    list: async () => Object.keys(files).map((name) => ({ name, bytes: bytesOf(name).length })),
    async read(file, begin, end) {
      this.reads++
      const bytes = bytesOf(file).subarray(begin, end)
      if (bytes.length !== end - begin) throw new Error(`read [${begin}, ${end}) outside ${file}`)
      return bytes
    },
    text: async (file) => new TextDecoder().decode(bytesOf(file)),
    close: async () => {},
  }
}

export type InventedTensor = { dtype: string; shape: number[]; bytes: Uint8Array }

/** A well-formed safetensors file. `header` may replace the one that fits. */
export function safetensors(tensors: Record<string, InventedTensor>, header?: unknown): Uint8Array {
  let end = 0
  const fitting = Object.fromEntries(
    Object.entries(tensors).map(([name, { dtype, shape, bytes }]) => {
      const begin = end
      end += bytes.length
      return [name, { dtype, shape, data_offsets: [begin, end] }]
    }),
  )
  const json = new TextEncoder().encode(JSON.stringify(header === undefined ? fitting : header))
  const length = new Uint8Array(8)
  new DataView(length.buffer).setBigUint64(0, BigInt(json.length), true)
  return Buffer.concat([length, json, ...Object.values(tensors).map(({ bytes }) => bytes)])
}
