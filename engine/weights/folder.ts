// A model in a local folder (or a mounted volume): the source that needs nothing but the file system.
// Files are opened once and read by position, so several ranges of one file may be in flight.
import { type FileHandle, open, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type FileEntry, ModelError, type Source } from './source.ts'

export async function openFolder(path: string): Promise<Source> {
  const info = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    throw new ModelError(`model folder ${path}: ${cause.code === 'ENOENT' ? 'no such folder' : cause.message}`, {
      cause,
    })
  })
  if (!info.isDirectory())
    throw new ModelError(`model folder ${path} is a file; give the folder that holds config.json`)
  return new Folder(path)
}

class Folder implements Source {
  readonly name: string
  #handles = new Map<string, Promise<FileHandle>>()

  constructor(path: string) {
    this.name = path
  }

  async list(): Promise<FileEntry[]> {
    const entries: FileEntry[] = []
    for (const name of (await readdir(this.name)).sort()) {
      const info = await stat(join(this.name, name))
      if (info.isFile()) entries.push({ name, bytes: info.size })
    }
    return entries
  }

  async read(file: string, begin: number, end: number): Promise<Uint8Array> {
    const handle = await this.#open(file)
    const bytes = new Uint8Array(end - begin)
    let done = 0
    while (done < bytes.length) {
      const { bytesRead } = await handle.read(bytes, done, bytes.length - done, begin + done)
      if (bytesRead === 0)
        throw new ModelError(
          `${join(this.name, file)} ends at byte ${begin + done}, ${end} were expected: it was cut short`,
        )
      done += bytesRead
    }
    return bytes
  }

  text(file: string): Promise<string> {
    return readFile(join(this.name, file), 'utf8')
  }

  async close(): Promise<void> {
    const handles = await Promise.allSettled(this.#handles.values())
    this.#handles.clear()
    for (const handle of handles) if (handle.status === 'fulfilled') await handle.value.close()
  }

  #open(file: string): Promise<FileHandle> {
    const known = this.#handles.get(file)
    if (known) return known
    const handle = open(join(this.name, file), 'r')
    this.#handles.set(file, handle)
    return handle
  }
}
