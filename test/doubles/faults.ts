// How a store misbehaves when a test says so. The doubles of S3 and of the hub ask `Fault` before every answer that
// carries a file, and send the body through `sendFile`.
import type { IncomingMessage, ServerResponse } from 'node:http'

export type Misbehaviour =
  | { kind: 'status'; status: number; code: string }
  /** `after` bytes of the body, then: silence; a clean end; a broken connection. */
  | { kind: 'stall' | 'short' | 'reset'; after: number }
  /** The whole object with 200, whatever range was asked for. */
  | { kind: 'whole' }
  /** One byte of the body is wrong. */
  | { kind: 'damage' }

export type FileRequest = {
  name: string
  begin: number
  end: number
  /** How many files or ranges were asked for before this one. */
  count: number
}

/** null: behave. */
export type Fault = (request: FileRequest) => Misbehaviour | null

export const noFault: Fault = () => null

/** [begin, end) of a Range header, or the whole file; null if it cannot be satisfied. */
export function parseRange(header: string | undefined, bytes: number): { begin: number; end: number } | null {
  const match = /^bytes=(\d+)-(\d*)$/.exec(header ?? '')
  if (!match) return { begin: 0, end: bytes }
  const begin = Number(match[1])
  const end = match[2] ? Math.min(Number(match[2]) + 1, bytes) : bytes
  return begin < end ? { begin, end } : null
}

export function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  file: Buffer,
  range: { begin: number; end: number },
  headers: Record<string, string>,
  fault: Misbehaviour | null,
): ServerResponse {
  const isPart = request.headers.range !== undefined && fault?.kind !== 'whole'
  let body = isPart ? file.subarray(range.begin, range.end) : file
  if (isPart) headers = { ...headers, 'content-range': `bytes ${range.begin}-${range.end - 1}/${file.length}` }
  if (fault?.kind === 'short') body = body.subarray(0, fault.after)
  if (fault?.kind === 'damage') {
    body = Buffer.from(body)
    body[body.length >> 1]! ^= 1
  }
  response.writeHead(isPart ? 206 : 200, {
    ...headers,
    'content-length': String(body.length),
    'accept-ranges': 'bytes',
  })
  if (request.method === 'HEAD') return response.end()
  if (fault?.kind !== 'stall' && fault?.kind !== 'reset') return response.end(body)
  response.write(body.subarray(0, fault.after))
  // Later, so that the client has read what was sent: a connection that breaks takes its unread bytes along.
  if (fault.kind === 'reset') setTimeout(() => response.destroy(), 20)
  return response
}
