// A model under s3://bucket/prefix of any S3 server: list, and ranges pinned to the ETag of the list. The SDK finds
// credentials, endpoint and region in the environment, the shared files or the node's role as everywhere; it makes one
// attempt at a time (network.ts repeats them).
import { createHash } from 'node:crypto'
import type { Readable } from 'node:stream'
import { GetObjectCommand, ListObjectsV2Command, type ListObjectsV2CommandOutput, S3Client } from '@aws-sdk/client-s3'
import { type Network, persist } from './network.ts'
import { isWhole } from './ranges.ts'
import type { Remote, RemoteFile } from './remote.ts'
import { isModelFile, type S3Options, SourceError } from './source.ts'

const connectTimeoutMs = 5_000

export async function openS3(url: string, options: S3Options, network: Network): Promise<Remote> {
  const { bucket, prefix } = parseUrl(url)
  const client = await createClient(options)
  // Contents are told apart by ETag, so two servers behind one name (an endpoint out of ~/.aws/config) do no harm.
  const host = options.endpoint === undefined ? 'aws' : new URL(options.endpoint).host
  const path = [host, bucket, ...prefix.split('/')].filter(Boolean).join('--')

  async function list(): Promise<RemoteFile[]> {
    const files: RemoteFile[] = []
    let token: string | undefined
    do {
      const page = await persist<ListObjectsV2CommandOutput>(`${url}: listing the bucket`, network, (abortSignal) => {
        const command = { Bucket: bucket, Prefix: prefix, Delimiter: '/', ContinuationToken: token }
        return client
          .send(new ListObjectsV2Command(command), { abortSignal })
          .catch((error) => refuse(url, bucket, error))
      })
      for (const { Key = '', Size = 0, ETag = '' } of page.Contents ?? []) {
        const name = Key.slice(prefix.length)
        if (isModelFile(name)) files.push({ name, address: Key, bytes: Size, etag: ETag.replaceAll('"', '') })
      }
      token = page.IsTruncated ? page.NextContinuationToken : undefined
    } while (token)
    return files
  }

  return {
    name: url,
    cacheName: `s3--${path.replaceAll(/[^\w.-]/g, '_')}`,
    ref: 'main',
    close: () => client.destroy(),

    async manifest() {
      const files = await list()
      if (files.length === 0) throw new SourceError('not_found', `${url} holds no model files; is the prefix right?`)
      return { revision: createHash('sha256').update(JSON.stringify(files)).digest('hex').slice(0, 40), files }
    },

    async open(file, begin, end, abortSignal) {
      const Range = isWhole(file, begin, end) ? undefined : `bytes=${begin}-${end - 1}`
      const command = new GetObjectCommand({ Bucket: bucket, Key: file.address, Range, IfMatch: `"${file.etag}"` })
      const answer = await client
        .send(command, { abortSignal })
        .catch((error) => refuse(`${url}/${file.name}`, bucket, error))
      const body = answer.Body as Readable
      if (answer.ETag?.replaceAll('"', '') !== file.etag) {
        body.destroy()
        throw replaced(`${url}/${file.name}`)
      }
      return { status: answer.$metadata.httpStatusCode ?? 0, contentRange: answer.ContentRange, body }
    },
  }
}

function parseUrl(url: string): { bucket: string; prefix: string } {
  const match = /^s3:\/\/([a-z0-9][a-z0-9._-]+)(\/.*)?$/i.exec(url)
  if (!match) throw new SourceError('invalid', `${url} is not of the form s3://bucket/prefix`)
  const prefix = (match[2] ?? '').split('/').filter(Boolean).join('/')
  return { bucket: match[1]!, prefix: prefix && `${prefix}/` }
}

async function createClient({ endpoint, region, credentials }: S3Options): Promise<S3Client> {
  if (endpoint !== undefined && !URL.canParse(endpoint))
    throw new SourceError('invalid', `the S3 endpoint ${endpoint} is not a URL; write it as https://host:port`)
  const settings = {
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(credentials === undefined ? {} : { credentials }),
    // Path style is what every S3 server understands; AWS still does.
    forcePathStyle: true,
    followRegionRedirects: true,
    maxAttempts: 1,
    requestChecksumCalculation: 'WHEN_REQUIRED' as const,
    responseChecksumValidation: 'WHEN_REQUIRED' as const,
    requestHandler: { connectionTimeout: connectTimeoutMs },
  }
  const client = new S3Client(region === undefined ? settings : { ...settings, region })
  const known = await client.config.region().catch(() => '')
  // Servers other than AWS mostly ignore the region, but it is part of the signature.
  return known ? client : new S3Client({ ...settings, region: 'us-east-1' })
}

type ServiceError = Error & { code?: string; $metadata?: { httpStatusCode?: number } }

/** Names what cannot be mended by repeating; throws the rest on to be repeated. Never quotes the server: it may echo keys. */
function refuse(where: string, bucket: string, error: ServiceError): never {
  const status = error.$metadata?.httpStatusCode ?? 0
  if (error.name === 'CredentialsProviderError')
    throw new SourceError(
      'denied',
      `${where}: no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role`,
    )
  if (error.code === 'ENOTFOUND')
    throw new SourceError('unreachable', `${where}: the host of the S3 endpoint does not exist (${error.message})`)
  if (error.name === 'RequestTimeTooSkewed') throw error
  if (status === 401 || status === 403 || error.name === 'ExpiredToken' || error.name === 'InvalidToken')
    throw new SourceError(
      'denied',
      `${where}: denied (${error.name}): wrong secret or missing permission; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and that s3:ListBucket and s3:GetObject are allowed`,
    )
  if (error.name === 'NoSuchBucket')
    throw new SourceError('not_found', `${where}: there is no bucket ${bucket} at this endpoint`)
  if (status === 404) throw new SourceError('not_found', `${where} does not exist`)
  if (status === 412 || status === 416) throw replaced(where)
  if (status === 301 || error.name === 'AuthorizationHeaderMalformed')
    throw new SourceError('invalid', `${where}: bucket ${bucket} is in another region; set AWS_REGION`)
  if (status >= 400 && status < 500 && status !== 408 && status !== 429)
    throw new SourceError('invalid', `${where}: the S3 server refuses the request with ${status} ${error.name}`)
  throw error
}

function replaced(where: string): SourceError {
  return new SourceError('changed', `${where} was replaced while the model was being read`)
}
