// Load for a gateway at little cost to the machine it shares: raw sockets, one per stream, and no parsing beyond what
// proves the order of a fake engine's tokens (`t0`, ` t1`, …).
import { connect, type Socket } from 'node:net'

export type StreamResult = {
  /** ms to the first token and to the end. */
  ttft: number
  ms: number
  tokens: number
  /** Tokens that did not carry the next number. */
  disorder: number
  done: boolean
  longestGapMs: number
  /** Of the answer; 0 when none came. */
  status: number
}

/** Tokens of all streams since the start. */
export const received = { tokens: 0 }

export type Load = { port: number; model: string; maxTokens: number; promptTokens?: number }

/** Of a request of token ids, or of a text: the whole HTTP message. */
export function message({ model, maxTokens, promptTokens = 16 }: Load, stream: boolean): Buffer {
  const prompt = Array.from({ length: promptTokens }, (_, i) => 65 + (i % 26))
  const body = JSON.stringify({ model, prompt, max_tokens: maxTokens, stream })
  const head = 'POST /v1/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n'
  return Buffer.from(`${head}content-length: ${body.length}\r\n\r\n${body}`)
}

const text = Buffer.from('"text":"')
const end = Buffer.from('data: [DONE]')

/** One stream to its end; `abortAfter` hangs up after so many tokens. */
export function streamOnce(load: Load, request: Buffer, abortAfter = Number.POSITIVE_INFINITY): Promise<StreamResult> {
  const start = performance.now()
  const result: StreamResult = { ttft: 0, ms: 0, tokens: 0, disorder: 0, done: false, longestGapMs: 0, status: 0 }
  let rest: Buffer = Buffer.alloc(0)
  let last = 0
  return new Promise((resolve) => {
    const socket = connect({ port: load.port, host: '127.0.0.1', noDelay: true })
    socket.on('connect', () => socket.write(request))
    socket.on('data', (bytes) => {
      const now = performance.now()
      const before = result.tokens
      if (result.status === 0) result.status = Number(bytes.toString('latin1', 9, 12))
      rest = scan(rest.length === 0 ? bytes : Buffer.concat([rest, bytes]), result)
      if (result.tokens > before) {
        if (before === 0) result.ttft = now - start
        else result.longestGapMs = Math.max(result.longestGapMs, now - last)
        last = now
      }
      if (result.done || result.tokens >= abortAfter) socket.destroy()
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      result.ms = performance.now() - start
      resolve(result)
    })
  })
}

/** Counts the tokens in `bytes`; returns what may be the beginning of one. */
function scan(bytes: Buffer, result: StreamResult): Buffer {
  let at = 0
  for (;;) {
    const begin = bytes.indexOf(text, at)
    if (begin < 0) break
    const stop = bytes.indexOf(0x22, begin + text.length)
    if (stop < 0) return bytes.subarray(begin)
    // The last chunk has no text.
    if (stop > begin + text.length) {
      const digits = bytes
        .toString('latin1', begin + text.length, stop)
        .trimStart()
        .slice(1)
      if (Number(digits) !== result.tokens) result.disorder++
      result.tokens++
      received.tokens++
    }
    at = stop + 1
  }
  if (bytes.indexOf(end, at) >= 0) result.done = true
  return bytes.subarray(Math.max(at, bytes.length - end.length))
}

/** A connection that is kept, for whole answers one after the other; resolves to ms per answer. */
export class Caller {
  readonly #socket: Socket
  #answer: (() => void) | null = null
  #received = ''

  static open(port: number): Promise<Caller> {
    return new Promise((resolve, reject) => {
      const socket = connect({ port, host: '127.0.0.1', noDelay: true })
      socket.once('error', reject)
      socket.once('connect', () => resolve(new Caller(socket)))
    })
  }

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('latin1')
    socket.on('data', (part: string) => {
      this.#received += part
      if (isWhole(this.#received)) {
        if (!this.#received.startsWith('HTTP/1.1 200')) throw new Error(`not a 200: ${this.#received}`)
        this.#received = ''
        this.#answer?.()
      }
    })
  }

  call(request: Buffer): Promise<number> {
    const start = performance.now()
    return new Promise((resolve) => {
      this.#answer = () => resolve(performance.now() - start)
      this.#socket.write(request)
    })
  }

  close(): void {
    this.#socket.destroy()
  }
}

/** An answer with a content-length, or chunked. */
function isWhole(answer: string): boolean {
  const head = answer.indexOf('\r\n\r\n')
  if (head < 0) return false
  const length = /content-length: (\d+)/i.exec(answer.slice(0, head))?.[1]
  return length === undefined ? answer.endsWith('0\r\n\r\n') : answer.length >= head + 4 + Number(length)
}
