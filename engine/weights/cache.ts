// The node's cache, in the layout of huggingface_hub, for the hub and for S3 alike, so that what Python has downloaded is
// used as it is and the other way round:
//   <root>/<repository>/blobs/<etag>                      contents, named by what they are
//   <root>/<repository>/snapshots/<revision>/<file>       links into blobs
//   <root>/<repository>/refs/<branch or tag>              the revision it stood for when last asked
// A blob appears only when it is complete (download.ts), so the right name and the right size are enough to trust it. Old
// revisions stay, as in huggingface_hub: an engine may still be reading them.
import { mkdir, mkdtemp, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { type Disk, downloadBlobs } from './download.ts'
import { assertModel, decodeText, listFolder } from './folder.ts'
import { chooseFiles, indexName } from './manifest.ts'
import type { Network } from './network.ts'
import type { Manifest, Remote, RemoteFile } from './remote.ts'
import { type Progress, SourceError } from './source.ts'

export type Cache = { root: string; disk: Disk }

/** Brings what is missing of the manifest's files and gives the folder of the snapshot. */
export async function fillSnapshot(
  { root, disk }: Cache,
  remote: Remote,
  { revision, files }: Manifest,
  network: Network,
  onProgress: (progress: Progress) => void,
): Promise<string> {
  const repository = join(root, remote.cacheName)
  const snapshot = join(repository, 'snapshots', revision)
  const blobOf = (file: RemoteFile) => join(repository, 'blobs', file.etag.replaceAll(/[^\w.-]/g, '_'))
  try {
    await mkdir(snapshot, { recursive: true })
    const unlinked: RemoteFile[] = []
    for (const file of files) if (!(await hasSize(join(snapshot, file.name), file))) unlinked.push(file)
    const missing: RemoteFile[] = []
    for (const file of unlinked) if (!(await hasSize(blobOf(file), file))) missing.push(file)

    const total = sizeOfAll(files)
    let bytes = total - sizeOfAll(missing)
    const seen = (file: string, more: number) => {
      bytes += more
      onProgress({ file, bytes, total })
    }
    if (missing.length > 0) await downloadBlobs(disk, repository, remote, missing, blobOf, network, seen)

    for (const file of unlinked) {
      const target = join('..', '..', 'blobs', basename(blobOf(file)))
      await publish(repository, join(snapshot, file.name), (path) => symlink(target, path))
    }
    if (revision !== remote.ref)
      await publish(repository, join(repository, 'refs', remote.ref), (path) => writeFile(path, revision))
    return snapshot
  } catch (error) {
    if (error instanceof SourceError) throw error
    const { code, message } = error as NodeJS.ErrnoException
    throw new SourceError('disk', `the cache folder ${root} cannot be used: ${code ?? message}`, { cause: error })
  }
}

/** The snapshot that the cache holds for what the user asked for, without asking the store. */
export async function findSnapshot({ root }: Cache, remote: Remote): Promise<string> {
  const repository = join(root, remote.cacheName)
  const noted = await readFile(join(repository, 'refs', remote.ref), 'utf8').catch(() => remote.ref)
  const snapshot = join(repository, 'snapshots', noted.trim())
  if (!(await stat(snapshot).catch(() => null)))
    throw new SourceError('not_found', `${remote.name} (${remote.ref}) is not in the cache ${root}`)
  const entries = await listFolder(snapshot)
  assertModel(snapshot, entries)
  if (entries.some((entry) => entry.name === indexName)) {
    const index = await readFile(join(snapshot, indexName))
    chooseFiles(snapshot, entries, decodeText(join(snapshot, indexName), index))
  }
  return snapshot
}

async function hasSize(path: string, file: RemoteFile): Promise<boolean> {
  return (await stat(path).catch(() => null))?.size === file.bytes
}

function sizeOfAll(files: RemoteFile[]): number {
  return files.reduce((sum, file) => sum + file.bytes, 0)
}

/** Others may be reading or publishing the same name: it goes from one whole thing to another. */
async function publish(repository: string, path: string, make: (path: string) => Promise<void>): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  const folder = await mkdtemp(join(repository, 'incomplete-'))
  await make(join(folder, basename(path)))
  await rename(join(folder, basename(path)), path)
  await rm(folder, { recursive: true })
}
