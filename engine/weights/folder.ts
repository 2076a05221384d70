// A model in a local folder (or a mounted volume), and the snapshots that cache.ts leaves. Opened by source.ts.
// Files stay open until close(), so that a folder replaced while it is being read cannot mix two versions of a file.
import { type FileHandle, open, readdir, readlink, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { type FileEntry, isModelFile, type Source, SourceError } from './source.ts'

/** tokenizer.json of the largest vocabularies is about 35 MB. */
const maxTextBytes = 256 * 2 ** 20

/** `check` refuses what cannot be a model by its files' names. */
export async function openFolder(path: string, check = assertModel): Promise<Source> {
  const entries = await listFolder(path)
  check(path, entries)
  const handles = new Map<string, Promise<FileHandle>>()

  function handleOf(file: string): Promise<FileHandle> {
    const handle = handles.get(file) ?? openFile(path, file)
    handles.set(file, handle)
    return handle
  }

  async function read(file: string, begin: number, end: number): Promise<Uint8Array> {
    const handle = await handleOf(file)
    const target = new Uint8Array(end - begin)
    for (let done = 0; done < target.length; ) {
      const { bytesRead } = await handle.read(target, done, target.length - done, begin + done)
      if (bytesRead === 0)
        throw new SourceError('corrupt', `${join(path, file)} ends at byte ${begin + done}, before byte ${end}`)
      done += bytesRead
    }
    return target
  }

  return {
    name: path,
    list: async () => entries,
    read,
    text: async (file) => decodeText(join(path, file), await read(file, 0, sizeOf(path, entries, file))),
    close: async () => {
      const opened = await Promise.allSettled(handles.values())
      handles.clear()
      for (const result of opened) if (result.status === 'fulfilled') await result.value.close()
    },
  }
}

/** The model files of a folder, by name; in a snapshot the link's target is named after the content. */
export async function listFolder(path: string): Promise<FileEntry[]> {
  const info = await stat(path).catch((error) => refuse(path, error))
  if (!info.isDirectory()) throw new SourceError('invalid', `${path} is a file; give the folder that holds config.json`)
  const names = (await readdir(path).catch((error) => refuse(path, error))).filter(isModelFile).sort()
  return Promise.all(
    names.map(async (name): Promise<FileEntry> => {
      const file = join(path, name)
      const { size } = await stat(file).catch((error) => refuse(file, error))
      const target = await readlink(file).catch(() => '')
      return target.startsWith('../../blobs/') ? { name, bytes: size, etag: basename(target) } : { name, bytes: size }
    }),
  )
}

/** Refuses what cannot be a model, before anything is downloaded or read. Its weights are judged after its config.json. */
export function assertModel(where: string, entries: FileEntry[]): void {
  if (!entries.some((entry) => entry.name === 'config.json'))
    throw new SourceError('invalid', `${where} has no config.json, so it is not a model in Hugging Face layout`)
}

export function sizeOf(where: string, entries: FileEntry[], file: string): number {
  const entry = entries.find((entry) => entry.name === file)
  if (!entry) throw new SourceError('not_found', `${where} has no ${file}`)
  return entry.bytes
}

export function decodeText(where: string, bytes: Uint8Array): string {
  if (bytes.length > maxTextBytes)
    throw new SourceError('invalid', `${where} has ${bytes.length} bytes, too many for text`)
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new SourceError('corrupt', `${where} is not UTF-8 text`)
  }
}

async function openFile(path: string, file: string): Promise<FileHandle> {
  if (!isModelFile(file)) throw new SourceError('invalid', `${file} is not a file that a model may have`)
  const name = join(path, file)
  return open(name, 'r').catch((error) => refuse(name, error))
}

function refuse(path: string, error: NodeJS.ErrnoException): never {
  if (error.code === 'ENOENT') throw new SourceError('not_found', `${path} does not exist`)
  if (error.code === 'EACCES') throw new SourceError('denied', `${path} may not be read by this user`)
  throw new SourceError('invalid', `${path} cannot be read: ${error.code ?? error.message}`)
}
