// AWS Signature Version 4, computed from the secret by the server's side of the protocol (the request's own text), so
// that a client with a wrong secret, or one that signs something else than it sends, is refused as S3 refuses it.
// https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
import { createHash, createHmac } from 'node:crypto'
import type { IncomingMessage } from 'node:http'

export type Keys = { accessKeyId: string; secretAccessKey: string }

/** The S3 error code of a request that may not pass; null if it is signed with these keys. */
export function refuseSignature(request: IncomingMessage, keys: Keys): string | null {
  const authorization = request.headers.authorization
  if (authorization === undefined) return 'AccessDenied'
  const match =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/.exec(
      authorization,
    )
  if (!match) return 'AuthorizationHeaderMalformed'
  const [, accessKeyId, date, region, signedHeaders, signature] = match as unknown as string[]
  if (accessKeyId !== keys.accessKeyId) return 'InvalidAccessKeyId'

  const url = new URL(request.url!, 'http://localhost')
  const query = [...url.searchParams].map(([name, value]) => `${encode(name)}=${encode(value)}`).sort()
  const headers = signedHeaders!.split(';').map((name) => `${name}:${String(request.headers[name] ?? '').trim()}\n`)
  const payload = String(request.headers['x-amz-content-sha256'])
  if (payload !== 'UNSIGNED-PAYLOAD' && payload !== sha256('')) return 'XAmzContentSHA256Mismatch'
  const canonical = [request.method, url.pathname, query.join('&'), headers.join(''), signedHeaders, payload].join('\n')

  const scope = `${date}/${region}/s3/aws4_request`
  const toSign = ['AWS4-HMAC-SHA256', request.headers['x-amz-date'], scope, sha256(canonical)].join('\n')
  let key: Buffer | string = `AWS4${keys.secretAccessKey}`
  for (const part of [date!, region!, 's3', 'aws4_request']) key = hmac(key, part)
  return hmac(key, toSign).toString('hex') === signature ? null : 'SignatureDoesNotMatch'
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function hmac(key: Buffer | string, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}
