// Decides what --model means and opens it. Called by engine/main.ts and by the scripts that read a model.
//
// A remote model is brought to the node's cache once and read from there. Where there is no cache to write (turned off,
// full, read-only) it is read from the store straight into memory instead.
import { stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { type Cache, fillSnapshot, findSnapshot } from './cache.ts'
import { openDirect } from './direct.ts'
import { type Disk, systemDisk } from './download.ts'
import { openFolder } from './folder.ts'
import { resolveManifest } from './manifest.ts'
import { createNetwork, type Network, type NetworkOptions } from './network.ts'
import type { Manifest, Remote } from './remote.ts'
import { type Source, SourceError, type SourceErrorCode, type SourceOptions } from './source.ts'

/** `network` and `disk` are for tests and tuning. */
export type OpenOptions = SourceOptions & { network?: NetworkOptions; disk?: Disk }

/** `model`: a folder, `s3://bucket/prefix`, or `org/name` on the hub. A folder of that name wins over the hub. */
export async function openSource(model: string, options: OpenOptions): Promise<Source> {
  const { downloadDir, disk = systemDisk } = options
  const network = createNetwork(options.clock, options.random, options.warn, options.network)
  const path = model.startsWith('~/') ? join(homedir(), model.slice(2)) : model
  if (/^(\.{0,2}\/|\.{1,2}$)/.test(path) || (await stat(path).catch(() => null))) return openFolder(path)
  // The clients of S3 and of the hub are loaded when they are needed: together they take 0.2 s and 50 MB.
  if (model.startsWith('s3://')) {
    const { openS3 } = await import('./s3.ts')
    const root = downloadDir ?? options.s3Cache ?? join(homedir(), '.cache', 'pagestream')
    return openRemote(await openS3(model, options.s3 ?? {}, network), { root, disk }, network, options)
  }
  if (/^\w[\w.-]*\/\w[\w.-]*$/.test(model)) {
    const { openHub } = await import('./hub.ts')
    const root = downloadDir ?? options.hubCache ?? join(homedir(), '.cache', 'huggingface', 'hub')
    const { hfEndpoint: endpoint, hfToken: token, revision, proxies } = options
    return openRemote(openHub(model, { endpoint, token, revision, proxies }, network), { root, disk }, network, options)
  }
  throw new SourceError('not_found', `${model} is not a folder here, nor s3://bucket/prefix, nor org/name of the hub`)
}

async function openRemote(remote: Remote, cache: Cache, network: Network, options: SourceOptions): Promise<Source> {
  try {
    return await (options.offline ? openCached(remote, cache) : openFresh(remote, cache, network, options))
  } catch (error) {
    remote.close()
    if (!options.offline || !(error instanceof SourceError)) throw error
    throw new SourceError(error.code, `${error.message}; offline mode allows no download (--offline, HF_HUB_OFFLINE)`)
  }
}

async function openCached(remote: Remote, cache: Cache): Promise<Source> {
  const snapshot = await findSnapshot(cache, remote)
  remote.close()
  return openFolder(snapshot)
}

async function openFresh(
  remote: Remote,
  cache: Cache,
  network: Network,
  options: SourceOptions,
  restarts = 1,
): Promise<Source> {
  const { onProgress = () => {}, warn = () => {}, cache: isCached = true } = options
  let manifest: Manifest
  try {
    manifest = await resolveManifest(remote, network)
  } catch (error) {
    if (!isCached || !hasCode(error, 'unreachable')) throw error
    // A store that is down must not keep a node from starting what it already has.
    const source = await openCached(remote, cache).catch(() => Promise.reject(error))
    warn(`${error.message}; going on with the copy in ${source.name}`)
    return source
  }
  if (!isCached) return openDirect(remote, manifest, network, onProgress)
  try {
    const snapshot = await fillSnapshot(cache, remote, manifest, network, onProgress)
    remote.close()
    return openFolder(snapshot)
  } catch (error) {
    if (hasCode(error, 'disk')) {
      warn(`${error.message}; ${remote.name} is read straight into memory, and again at every start`)
      return openDirect(remote, manifest, network, onProgress)
    }
    if (restarts === 0 || !hasCode(error, 'changed')) throw error
    warn(`${error.message}; starting again with the new version`)
    return openFresh(remote, cache, network, options, restarts - 1)
  }
}

function hasCode(error: unknown, code: SourceErrorCode): error is SourceError {
  return error instanceof SourceError && error.code === code
}
