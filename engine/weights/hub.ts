// A model in a repository of the Hugging Face hub, or of any server that speaks its API (HF_ENDPOINT). The revision is
// resolved to a commit first and every file is addressed by that commit, so content cannot change under us. Large files
// live on another host behind a redirect: the token is never sent there.
import { type Dispatcher, EnvHttpProxyAgent, request } from 'undici'
import { z } from 'zod'
import { type Network, persist } from './network.ts'
import { isWhole } from './ranges.ts'
import type { Remote, RemoteFile } from './remote.ts'
import { isModelFile, SourceError } from './source.ts'

/** As in HTTP_PROXY, HTTPS_PROXY and NO_PROXY. */
export type Proxies = { http?: string | undefined; https?: string | undefined; none?: string | undefined }

export type HubOptions = {
  endpoint?: string | undefined
  token?: string | undefined
  revision?: string | undefined
  proxies?: Proxies | undefined
}

const connectTimeoutMs = 5_000
const maxRedirects = 5

/** Sizes and hashes are absent from mirrors that know only names; then each file is asked by HEAD. */
const ModelInfo = z.object({
  sha: z.string().regex(/^[0-9a-f]{40}$/),
  siblings: z.array(
    z.object({
      rfilename: z.string(),
      size: z.int().nonnegative().optional(),
      blobId: z.string().optional(),
      lfs: z.object({ sha256: z.string() }).nullish(),
    }),
  ),
})

export function openHub(repository: string, options: HubOptions, network: Network): Remote {
  const { endpoint = 'https://huggingface.co', token, revision = 'main', proxies = {} } = options
  if (!URL.canParse(endpoint)) throw new SourceError('invalid', `HF_ENDPOINT is not a URL: ${endpoint}`)
  if (!/^\w[\w./-]*$/.test(revision) || revision.includes('..'))
    throw new SourceError('invalid', `--revision "${revision}" is not a branch, tag or commit`)
  const origin = new URL(endpoint).origin
  const base = endpoint.replace(/\/+$/, '')
  const dispatcher = new EnvHttpProxyAgent({
    connect: { timeout: connectTimeoutMs },
    // The watch in network.ts is the only judge of silence. Empty texts keep the agent from reading the environment.
    headersTimeout: 0,
    bodyTimeout: 0,
    httpProxy: proxies.http ?? '',
    httpsProxy: proxies.https ?? '',
    noProxy: proxies.none ?? '',
  })
  /** Where a large file really is; such addresses are signed and expire. */
  const locations = new Map<string, string>()

  /** Follows redirects, the token only within the hub. HEAD stops where a file leaves it: there stand hash and size. */
  async function ask(method: 'GET' | 'HEAD', url: string, range: string | undefined, signal: AbortSignal) {
    for (let hops = 0; hops < maxRedirects; hops++) {
      const trusted = new URL(url).origin === origin
      const answer = await request(url, {
        method,
        dispatcher,
        signal,
        headers: {
          'user-agent': 'pagestream',
          // Compression would make lengths and ranges mean something else.
          'accept-encoding': 'identity',
          ...(range === undefined ? {} : { range }),
          ...(trusted && token ? { authorization: `Bearer ${token}` } : {}),
        },
      }).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOTFOUND')
          throw new SourceError('unreachable', `${repository}: ${error.message}; check HF_ENDPOINT and the network`)
        throw error
      })
      const location = answer.headers.location
      if (answer.statusCode < 300 || answer.statusCode >= 400 || typeof location !== 'string') return { answer, url }
      const next = new URL(location, url)
      if (method === 'HEAD' && next.origin !== origin) return { answer, url }
      await answer.body.dump()
      url = next.href
    }
    throw new Error(`more than ${maxRedirects} redirects`)
  }

  /** Size and hash of a file by HEAD; for a large file they stand in the redirect. */
  async function describe(name: string, address: string): Promise<RemoteFile> {
    return persist(`${repository}/${name}`, network, async (signal) => {
      const { answer } = await ask('HEAD', address, undefined, signal)
      await answer.body.dump()
      if (answer.statusCode >= 400) refuse(`${repository}/${name}`, answer)
      const etag = header(answer, 'x-linked-etag') ?? header(answer, 'etag') ?? ''
      const bytes = Number(header(answer, 'x-linked-size') ?? header(answer, 'content-length') ?? Number.NaN)
      if (!Number.isSafeInteger(bytes))
        throw new SourceError('invalid', `${repository}/${name}: ${base} does not tell its size`)
      return remoteFile(name, address, bytes, etag.replace(/^W\//, '').replaceAll('"', ''))
    })
  }

  /** Names what cannot be mended by repeating; throws the rest to be repeated. */
  function refuse(where: string, { statusCode, headers }: Dispatcher.ResponseData): never {
    const code = headers['x-error-code']
    if (code === 'GatedRepo')
      throw new SourceError(
        'denied',
        `${where}: the model is gated; accept its terms at ${base}/${repository} and set HF_TOKEN`,
      )
    if (code === 'RevisionNotFound')
      throw new SourceError('not_found', `${where}: there is no revision "${revision}"; check --revision`)
    if (code === 'EntryNotFound')
      throw new SourceError('not_found', `${where} does not exist at revision "${revision}"`)
    if (statusCode === 401 || statusCode === 403 || statusCode === 404) {
      const cure = token
        ? 'check the name and that HF_TOKEN may read it'
        : 'check the name, or set HF_TOKEN if it is private'
      throw new SourceError(
        statusCode === 404 ? 'not_found' : 'denied',
        `${where}: not found at ${base} (${statusCode}); ${cure}`,
      )
    }
    if (statusCode >= 400 && statusCode < 500 && statusCode !== 408 && statusCode !== 429)
      throw new SourceError('invalid', `${where}: ${base} refuses the request with ${statusCode}`)
    throw new Error(`${base} answered ${statusCode}`)
  }

  return {
    name: repository,
    cacheName: `models--${repository.replaceAll('/', '--')}`,
    ref: revision,
    close: () => void dispatcher.destroy(),

    async manifest() {
      const info = await persist(repository, network, async (signal) => {
        const url = `${base}/api/models/${repository}/revision/${encodeURIComponent(revision)}?blobs=true`
        const { answer } = await ask('GET', url, undefined, signal)
        if (answer.statusCode === 200) return ModelInfo.safeParse(await answer.body.json())
        await answer.body.dump()
        return refuse(repository, answer)
      })
      if (!info.success)
        throw new SourceError('invalid', `${repository}: ${base} does not answer as the Hugging Face hub does`)
      const commit = info.data.sha
      const siblings = info.data.siblings.filter((sibling) => isModelFile(sibling.rfilename))
      const files = siblings.map(async ({ rfilename: name, size, blobId, lfs }) => {
        const address = `${base}/${repository}/resolve/${commit}/${encodeURIComponent(name)}`
        const etag = lfs?.sha256 ?? blobId
        if (etag === undefined || size === undefined) return describe(name, address)
        return remoteFile(name, address, size, etag)
      })
      return { revision: commit, files: await Promise.all(files) }
    },

    async open(file, begin, end, signal) {
      const range = isWhole(file, begin, end) ? undefined : `bytes=${begin}-${end - 1}`
      const { answer, url } = await ask('GET', locations.get(file.address) ?? file.address, range, signal)
      const { statusCode, body } = answer
      const elsewhere = new URL(url).origin !== origin
      if (statusCode === 200 || statusCode === 206) {
        if (elsewhere) locations.set(file.address, url)
        return { status: statusCode, contentRange: header(answer, 'content-range'), body }
      }
      await body.dump()
      if (!elsewhere) return refuse(`${repository}/${file.name}`, answer)
      // The signed address may have expired: the next attempt asks the hub for another.
      locations.delete(file.address)
      throw new Error(`${new URL(url).host} answered ${statusCode}`)
    },
  }
}

/** The hub names large files by SHA-256 and small ones by git's hash of a blob. */
function remoteFile(name: string, address: string, bytes: number, etag: string): RemoteFile {
  const file = { name, address, bytes, etag }
  if (/^[0-9a-f]{64}$/.test(etag)) return { ...file, verify: 'sha256' }
  if (/^[0-9a-f]{40}$/.test(etag)) return { ...file, verify: 'git' }
  return file
}

function header({ headers }: Dispatcher.ResponseData, name: string): string | undefined {
  const value = headers[name]
  return typeof value === 'string' ? value : undefined
}
