// A Hugging Face hub of our own: the revision API, resolve, and large files behind a redirect to a second origin (another
// port), which counts every request that brings it the token. Private repositories ask for the token.
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Fault, noFault, parseRange, sendFile } from './faults.ts'

export type HubDouble = {
  endpoint: string
  commit: string
  fault: Fault
  log: string[]
  /** Requests at the second origin that carried an authorization header: must stay 0. */
  tokensLeaked: number
  /** Signed addresses given out so far stop to work. */
  expireAddresses(): void
  close(): Promise<void>
}

type Options = {
  repository: string
  files: Record<string, Buffer>
  /** Asked for when set. */
  token?: string
  /** false: a mirror that lists names only. */
  blobs?: boolean
  gated?: boolean
  /** An old name of the repository, from which the hub redirects. */
  formerly?: string
}

export async function startHub({
  repository,
  files,
  token,
  blobs = true,
  gated = false,
  formerly,
}: Options): Promise<HubDouble> {
  const commit = createHash('sha1').update(Object.keys(files).join()).digest('hex')
  let filesAsked = 0
  let signature = 1

  const storage = createServer((request, response) => {
    double.log.push(`storage ${request.method} ${request.url}`)
    if (request.headers.authorization !== undefined) double.tokensLeaked++
    const url = new URL(request.url!, 'http://localhost')
    if (url.searchParams.get('signature') !== String(signature)) return sendError(response, 403, 'ExpiredSignature')
    send(url.pathname.slice(1), request, response, {})
  })

  const hub = createServer((request, response) => {
    double.log.push(`hub ${request.method} ${request.url}`)
    const url = new URL(request.url!, 'http://localhost')
    const path = decodeURIComponent(url.pathname)
    if (formerly !== undefined && path.includes(`/${formerly}/`)) {
      response.writeHead(307, { location: request.url!.replace(formerly, repository) })
      return response.end('moved')
    }
    if (gated) return sendError(response, 403, 'GatedRepo')
    if (token !== undefined && request.headers.authorization !== `Bearer ${token}`)
      return sendError(response, 401, 'RepoNotFound')
    const api = new RegExp(`^/api/models/${repository}/revision/(.+)$`).exec(path)
    if (api) return sendInfo(api[1]!, url.searchParams.get('blobs') === 'true' && blobs, response)
    const resolved = new RegExp(`^/${repository}/resolve/([0-9a-f]{40})/(.+)$`).exec(path)
    if (!resolved) return sendError(response, 404, 'RepoNotFound')
    const name = resolved[2]!
    const file = files[name]
    if (resolved[1] !== commit) return sendError(response, 404, 'RevisionNotFound')
    if (!file) return sendError(response, 404, 'EntryNotFound')
    if (!isLarge(name)) return send(name, request, response, { etag: `"${gitHash(file)}"`, 'x-repo-commit': commit })
    response.writeHead(302, {
      location: `${originOf(storage)}/${name}?signature=${signature}`,
      'x-linked-etag': `"${sha256(file)}"`,
      'x-linked-size': String(file.length),
      'x-repo-commit': commit,
    })
    response.end()
  })

  function sendInfo(revision: string, withBlobs: boolean, response: ServerResponse): ServerResponse {
    if (revision !== 'main' && revision !== commit) return sendError(response, 404, 'RevisionNotFound')
    const siblings = Object.entries(files).map(([rfilename, file]) => {
      if (!withBlobs) return { rfilename }
      const lfs = isLarge(rfilename) ? { lfs: { sha256: sha256(file), size: file.length } } : {}
      return { rfilename, size: file.length, blobId: gitHash(file), ...lfs }
    })
    response.writeHead(200, { 'content-type': 'application/json' })
    return response.end(JSON.stringify({ id: repository, sha: commit, siblings }))
  }

  function send(
    name: string,
    request: IncomingMessage,
    response: ServerResponse,
    headers: Record<string, string>,
  ): ServerResponse {
    const file = files[name]!
    const range = parseRange(request.headers.range, file.length)
    if (!range) return sendError(response, 416, 'InvalidRange')
    const fault = request.method === 'HEAD' ? null : double.fault({ name, ...range, count: filesAsked++ })
    if (fault?.kind === 'status') return sendError(response, fault.status, fault.code)
    return sendFile(request, response, file, range, headers, fault)
  }

  await Promise.all([hub, storage].map((server) => new Promise<void>((on) => server.listen(0, '127.0.0.1', on))))
  const double: HubDouble = {
    endpoint: originOf(hub),
    commit,
    fault: noFault,
    log: [],
    tokensLeaked: 0,
    expireAddresses: () => void signature++,
    async close() {
      for (const server of [hub, storage]) {
        server.closeAllConnections()
        await new Promise((closed) => server.close(closed))
      }
    },
  }
  return double
}

/** What the hub keeps in LFS: here simply the weights. */
function isLarge(name: string): boolean {
  return name.endsWith('.safetensors')
}

function originOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function sendError(response: ServerResponse, status: number, code: string): ServerResponse {
  response.writeHead(status, { 'x-error-code': code })
  return response.end(code)
}

export function sha256(file: Buffer): string {
  return createHash('sha256').update(file).digest('hex')
}

/** The name git gives to a file's content. */
export function gitHash(file: Buffer): string {
  return createHash('sha1').update(`blob ${file.length}\0`).update(file).digest('hex')
}
