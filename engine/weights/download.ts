// Remote files into blobs of the cache (cache.ts). Every download writes into a folder of its own; a file becomes a blob by
// one rename, after its last byte is there, its hash is right and it is on the disk. So a killed process, a full disk or a
// power cut leaves no blob that is not whole, and two engines of one node may download the same file at once.
import { createHash } from 'node:crypto'
import { type FileHandle, mkdir, mkdtemp, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../../queue/clock.ts'
import type { Network } from './network.ts'
import { cut, transfer } from './ranges.ts'
import type { Remote, RemoteFile } from './remote.ts'
import { SourceError } from './source.ts'

/** What of the disk a test replaces. */
export type Disk = {
  freeBytes(folder: string): Promise<number>
  /** All of `data`. */
  write(file: FileHandle, data: Uint8Array, position: number): Promise<void>
}

export const systemDisk: Disk = {
  async freeBytes(folder) {
    const { bavail, bsize } = await statfs(folder)
    return bavail * bsize
  },
  async write(file, data, position) {
    for (let done = 0; done < data.length; )
      done += (await file.write(data, done, data.length - done, position + done)).bytesWritten
  },
}

/** A silent connection is given up much sooner, so a download this long without a byte belongs to no living process. */
const abandonedMs = 15 * 60_000

type Incoming = { file: RemoteFile; path: string; handle: FileHandle; bytesLeft: number }

export async function downloadBlobs(
  disk: Disk,
  repository: string,
  remote: Remote,
  files: RemoteFile[],
  blobOf: (file: RemoteFile) => string,
  network: Network,
  seen: (file: string, bytes: number) => void,
): Promise<void> {
  await mkdir(join(repository, 'blobs'), { recursive: true })
  await removeAbandoned(repository, network.clock)
  await assertRoom(disk, repository, files)
  const folder = await mkdtemp(join(repository, 'incomplete-'))
  const incoming = new Map<RemoteFile, Incoming>()
  try {
    for (const file of files) {
      const path = join(folder, file.name)
      incoming.set(file, { file, path, handle: await open(path, 'wx+'), bytesLeft: file.bytes })
    }
    const pieces = files.flatMap((file) => cut(file, 0, file.bytes, network.partBytes))
    await transfer(
      remote,
      pieces,
      network,
      async ({ file }, chunk, position) => {
        await disk.write(incoming.get(file)!.handle, chunk, position).catch(diskFailed(repository))
        seen(file.name, chunk.length)
      },
      async ({ file, begin, end }) => {
        const arriving = incoming.get(file)!
        arriving.bytesLeft -= end - begin
        if (arriving.bytesLeft === 0) await keep(arriving, blobOf(file), remote).catch(diskFailed(repository))
      },
    )
  } finally {
    for (const { handle } of incoming.values()) await handle.close()
    await rm(folder, { recursive: true, force: true })
  }
}

async function keep({ file, path, handle }: Incoming, blob: string, remote: Remote): Promise<void> {
  if (file.verify && (await hashOf(handle, file.verify, file.bytes)) !== file.etag)
    throw new SourceError('corrupt', `${remote.name}/${file.name} arrived damaged: its hash is not ${file.etag}`)
  await handle.datasync()
  await handle.close()
  await rename(path, blob)
}

async function hashOf(handle: FileHandle, kind: 'sha256' | 'git', bytes: number): Promise<string> {
  const hash = kind === 'sha256' ? createHash('sha256') : createHash('sha1').update(`blob ${bytes}\0`)
  const stream = handle.createReadStream({ start: 0, autoClose: false, highWaterMark: 1 << 20 })
  for await (const chunk of stream) hash.update(chunk)
  return hash.digest('hex')
}

async function assertRoom(disk: Disk, repository: string, files: RemoteFile[]): Promise<void> {
  const needed = files.reduce((sum, file) => sum + file.bytes, 0)
  const free = await disk.freeBytes(repository)
  if (free < needed)
    throw new SourceError('disk', `the cache folder ${repository} has ${inGb(free)} free, ${inGb(needed)} are needed`)
}

function inGb(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`
}

/** Repeating does not help a disk: an error of it ends the download. */
function diskFailed(repository: string): (error: NodeJS.ErrnoException) => never {
  return (error) => {
    if (error instanceof SourceError) throw error
    throw new SourceError('disk', `the cache folder ${repository} cannot be written: ${error.code ?? error.message}`)
  }
}

async function removeAbandoned(repository: string, clock: Clock): Promise<void> {
  for (const name of await readdir(repository)) {
    if (!name.startsWith('incomplete-')) continue
    const folder = join(repository, name)
    const files = await readdir(folder).catch(() => [])
    const times = await Promise.all([folder, ...files.map((file) => join(folder, file))].map(lastChange))
    if (clock.now() - Math.max(...times) > abandonedMs) await rm(folder, { recursive: true, force: true })
  }
}

async function lastChange(path: string): Promise<number> {
  return (await stat(path).catch(() => null))?.mtimeMs ?? 0
}
