// Which of a remote's files make up the model, found out before a byte of the weights is fetched: a model that this engine
// cannot run is refused by its config.json now, not after 100 GB. A repository often holds its weights twice
// (consolidated.safetensors beside the shards); the index, where there is one, says which files are the model.
import { z } from 'zod'
import { parseModelConfig } from '../models/config.ts'
import { assertModel, decodeText } from './folder.ts'
import { parseJson } from './json.ts'
import type { Network } from './network.ts'
import { readRange } from './ranges.ts'
import type { Manifest, Remote } from './remote.ts'
import { type FileEntry, SourceError } from './source.ts'

export const indexName = 'model.safetensors.index.json'

const Index = z.object({ weight_map: z.record(z.string(), z.string()) })

export async function resolveManifest(remote: Remote, network: Network): Promise<Manifest> {
  const { revision, files } = await remote.manifest()
  assertModel(remote.name, files)
  async function text(name: string): Promise<string | undefined> {
    const file = files.find((file) => file.name === name)
    return file && decodeText(`${remote.name}/${name}`, await readRange(remote, file, 0, file.bytes, network))
  }
  parseModelConfig(parseJson('config.json', (await text('config.json')) ?? ''))
  return { revision, files: chooseFiles(remote.name, files, await text(indexName)) }
}

/** All small files, and of the weights those that the index names, or model.safetensors, or else all. */
export function chooseFiles<File extends FileEntry>(where: string, files: File[], index: string | undefined): File[] {
  const isChosen = weightsOf(where, files, index)
  return files.filter((file) => !file.name.endsWith('.safetensors') || isChosen(file.name))
}

function weightsOf(where: string, files: FileEntry[], index: string | undefined): (name: string) => boolean {
  if (index === undefined) {
    const isSingle = files.some((file) => file.name === 'model.safetensors')
    return (name) => !isSingle || name === 'model.safetensors'
  }
  const shards = shardsOf(where, index)
  const held = new Set(files.map((file) => file.name))
  for (const shard of shards)
    if (!held.has(shard)) throw new SourceError('not_found', `${where} has no ${shard}, which ${indexName} names`)
  return (name) => shards.has(name)
}

function shardsOf(where: string, index: string): Set<string> {
  try {
    return new Set(Object.values(Index.parse(JSON.parse(index)).weight_map))
  } catch {
    throw new SourceError('corrupt', `${where}/${indexName} is not an index: it needs a "weight_map" of tensor to file`)
  }
}
