// Decides what --model means and opens it. Called by engine/main.ts and by the scripts that read a model.
import { stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { openFolder } from './folder.ts'
import { type Source, SourceError, type SourceOptions } from './source.ts'

/** `model`: a folder, `s3://bucket/prefix`, or `org/name` on the hub. A folder of that name wins over the hub. */
export async function openSource(model: string, _options: SourceOptions): Promise<Source> {
  const path = model.startsWith('~/') ? join(homedir(), model.slice(2)) : model
  if (await stat(path).catch(() => null)) return openFolder(path)
  throw new SourceError('not_found', `${model} is not a folder here, nor s3://bucket/prefix, nor org/name of the hub`)
}
