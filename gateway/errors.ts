// Every error a client sees is an ApiError, thrown anywhere in gateway/ and rendered once by the app's onError as
// OpenAI's envelope {error: {message, type, param, code}}. Messages say what was wrong with which value and what to do;
// nothing else (stack, path, key, Redis text) leaves the process.
import type { FailureCode } from '../queue/event.ts'

export class ApiError extends Error {
  readonly status: number
  readonly code: string | null
  readonly param: string | null
  readonly headers: Record<string, string>

  constructor(
    status: number,
    code: string | null,
    param: string | null,
    message: string,
    headers: Record<string, string> = {},
  ) {
    super(message)
    this.status = status
    this.code = code
    this.param = param
    this.headers = headers
  }

  get type(): string {
    if (this.status === 403) return 'permission_error'
    if (this.status === 503) return 'service_unavailable_error'
    if (this.code?.startsWith('idempotency_')) return 'idempotency_error'
    return this.status >= 500 ? 'server_error' : 'invalid_request_error'
  }

  envelope(): string {
    const { message, type, param, code } = this
    return JSON.stringify({ error: { message, type, param, code } })
  }
}

/** A bad value in the body; `param` is its JSON path. */
export function badRequest(param: string | null, message: string, code: string | null = null): ApiError {
  return new ApiError(400, code, param, message)
}

/** A 503 the official clients retry after the given time. */
export function unavailable(code: string, message: string, retryAfterMs: number): ApiError {
  return new ApiError(503, code, null, message, {
    'x-should-retry': 'true',
    'retry-after-ms': String(Math.ceil(retryAfterMs)),
    'retry-after': String(Math.max(1, Math.ceil(retryAfterMs / 1000))),
  })
}

/** Redis did not answer. The cause is for the log only. */
export function queueUnavailable(cause: unknown): ApiError {
  const error = unavailable('queue_unavailable', 'The request queue is unavailable. Try again in a moment.', 1000)
  error.cause = cause
  return error
}

export function internalError(cause: unknown): ApiError {
  const message = 'The server had an error while processing the request. Quote the x-request-id of this answer.'
  const error = new ApiError(500, 'internal_error', null, message)
  error.cause = cause
  return error
}

/** What became of a job, as HTTP. Engine messages are written for clients (queue/event.ts). */
export function jobFailure(code: FailureCode, message: string): ApiError {
  switch (code) {
    case 'context_length_exceeded':
      return new ApiError(400, code, null, message, { 'x-should-retry': 'false' })
    case 'request_failed':
    case 'internal_error':
      return new ApiError(500, code, null, message)
    default:
      return unavailable(code, message, 1000)
  }
}

/** Whatever was thrown, as an ApiError. */
export function toApiError(error: unknown): ApiError {
  return error instanceof ApiError ? error : internalError(error)
}
