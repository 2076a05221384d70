// A Remote read straight into memory, nothing on disk: where the cache is turned off or its disk is full (open.ts).
import { decodeText, sizeOf } from './folder.ts'
import type { Network } from './network.ts'
import { readRange } from './ranges.ts'
import type { Manifest, Remote, RemoteFile } from './remote.ts'
import { type Progress, type Source, SourceError } from './source.ts'

export function openDirect(
  remote: Remote,
  { files }: Manifest,
  network: Network,
  onProgress: (progress: Progress) => void,
): Source {
  const entries = files.map(({ name, bytes, etag }) => ({ name, bytes, etag }))
  const total = files.reduce((sum, file) => sum + file.bytes, 0)
  let arrived = 0

  async function read(name: string, begin: number, end: number): Promise<Uint8Array> {
    const file = fileOf(name)
    if (end > file.bytes)
      throw new SourceError('corrupt', `${remote.name}/${name} ends at byte ${file.bytes}, before byte ${end}`)
    return readRange(remote, file, begin, end, network, (bytes) => {
      arrived += bytes
      // What is read twice (headers, small texts) must not carry the figure past the end.
      onProgress({ file: name, bytes: Math.min(arrived, total), total })
    })
  }

  function fileOf(name: string): RemoteFile {
    const file = files.find((file) => file.name === name)
    if (!file) throw new SourceError('not_found', `${remote.name} has no ${name}`)
    return file
  }

  return {
    name: remote.name,
    list: async () => entries,
    read,
    text: async (file) => decodeText(`${remote.name}/${file}`, await read(file, 0, sizeOf(remote.name, entries, file))),
    close: async () => remote.close(),
  }
}
