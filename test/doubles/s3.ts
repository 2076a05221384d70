// A small S3 server of our own: one bucket in memory, path style, signatures checked, ranges, ETags, If-Match, listing in
// pages, and any misbehaviour a test asks for. Tests start it with startS3(); as a program it serves a folder:
//   node test/doubles/s3.ts FOLDER [--port N]
// and prints what to give `pagestream serve --model s3://…`.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { type Fault, noFault, parseRange, sendFile } from './faults.ts'
import { type Keys, refuseSignature } from './signature.ts'

export type S3Double = {
  endpoint: string
  keys: Keys
  bucket: string
  /** A test may change it between requests. */
  fault: Fault
  /** Every request as "METHOD key?range -> status", for assertions on what was really asked. */
  log: string[]
  put(key: string, body: Buffer): void
  close(): Promise<void>
}

type Options = {
  pageSize?: number
  port?: number
  keys?: Keys
  /** As some servers do. */
  ignoresIfMatch?: boolean
}

export async function startS3(options: Options = {}): Promise<S3Double> {
  const { pageSize = 1000, port = 0, keys = testKeys, ignoresIfMatch = false } = options
  const objects = new Map<string, { body: Buffer; etag: string }>()
  const bucket = 'models'
  let filesAsked = 0

  const server = createServer((request, response) => {
    response.on('close', () => {
      const range = request.headers.range ? ` ${request.headers.range}` : ''
      double.log.push(`${request.method} ${decodeURIComponent(request.url!)}${range} -> ${response.statusCode}`)
    })
    const refusal = refuseSignature(request, keys)
    if (refusal) return sendError(response, 403, refusal)
    const url = new URL(request.url!, 'http://localhost')
    const [, name, ...rest] = decodeURIComponent(url.pathname).split('/')
    if (name !== bucket) return sendError(response, 404, 'NoSuchBucket')
    if (rest.join('/') === '') return list(url.searchParams, response)
    return get(rest.join('/'), request, response)
  })

  function list(query: URLSearchParams, response: ServerResponse): ServerResponse {
    const fault = double.fault({ name: '', begin: 0, end: 0, count: filesAsked++ })
    if (fault?.kind === 'status') return sendError(response, fault.status, fault.code)
    const prefix = query.get('prefix') ?? ''
    const delimiter = query.get('delimiter')
    const after = query.get('continuation-token') ?? ''
    const keysLeft = [...objects.keys()]
      .filter((key) => key.startsWith(prefix) && key > after)
      .filter((key) => !delimiter || !key.slice(prefix.length).includes(delimiter))
      .sort()
    const page = keysLeft.slice(0, pageSize)
    const isTruncated = keysLeft.length > page.length
    const contents = page.map((key) => {
      const { body, etag } = objects.get(key)!
      return `<Contents><Key>${escapeXml(key)}</Key><ETag>&quot;${etag}&quot;</ETag><Size>${body.length}</Size></Contents>`
    })
    const next = isTruncated ? `<NextContinuationToken>${escapeXml(page.at(-1)!)}</NextContinuationToken>` : ''
    response.writeHead(200, { 'content-type': 'application/xml' })
    return response.end(
      `<?xml version="1.0"?><ListBucketResult><Name>${bucket}</Name><KeyCount>${page.length}</KeyCount>` +
        `<IsTruncated>${isTruncated}</IsTruncated>${next}${contents.join('')}</ListBucketResult>`,
    )
  }

  function get(key: string, request: IncomingMessage, response: ServerResponse): ServerResponse {
    const object = objects.get(key)
    if (!object) return sendError(response, 404, 'NoSuchKey')
    const range = parseRange(request.headers.range, object.body.length)
    if (!range) return sendError(response, 416, 'InvalidRange')
    const fault = double.fault({ name: key, ...range, count: filesAsked++ })
    if (fault?.kind === 'status') return sendError(response, fault.status, fault.code)
    // Looked up again: the fault of a test may have replaced the object.
    const { body, etag } = objects.get(key)!
    const expected = ignoresIfMatch ? undefined : request.headers['if-match']
    if (expected !== undefined && expected !== `"${etag}"`) return sendError(response, 412, 'PreconditionFailed')
    return sendFile(request, response, body, range, { etag: `"${etag}"`, 'content-type': 'binary/octet-stream' }, fault)
  }

  await new Promise<void>((listening) => server.listen(port, '127.0.0.1', listening))
  const double: S3Double = {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    keys,
    bucket,
    fault: noFault,
    log: [],
    put: (key, body) => void objects.set(key, { body, etag: createHash('md5').update(body).digest('hex') }),
    close: () => {
      server.closeAllConnections()
      return new Promise((closed) => server.close(() => closed()))
    },
  }
  return double
}

const testKeys: Keys = { accessKeyId: 'AKIDPAGESTREAM', secretAccessKey: 'test-secret/of+the=double' }

function sendError(response: ServerResponse, status: number, code: string): ServerResponse {
  response.writeHead(status, { 'content-type': 'application/xml' })
  return response.end(
    `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code} by the double</Message></Error>`,
  )
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { port: { type: 'string', default: '0' } },
  })
  const folder = resolve(positionals[0] ?? '.')
  const double = await startS3({ port: Number(values.port) })
  for (const file of readdirSync(folder, { withFileTypes: true }))
    if (file.isFile()) double.put(`${basename(folder)}/${file.name}`, readFileSync(join(folder, file.name)))
  console.log(`export AWS_ENDPOINT_URL=${double.endpoint}`)
  console.log(
    `export AWS_ACCESS_KEY_ID=${double.keys.accessKeyId} AWS_SECRET_ACCESS_KEY=${double.keys.secretAccessKey}`,
  )
  console.log(`# --model s3://${double.bucket}/${basename(folder)}`)
}

if (import.meta.main) await main()
