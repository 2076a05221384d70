// Who asks. Default deny: every path but the probes needs a key, routes that do not exist included. Without configured
// keys every caller is accepted (a key is then ignored, as with vLLM). Keys are compared in constant time, on digests of
// equal length, and never echoed.
import { createHash, timingSafeEqual } from 'node:crypto'
import type { MiddlewareHandler } from 'hono'
import type { Gateway, RequestEnv } from '../context.ts'
import { ApiError } from '../errors.ts'

const PROBES = ['/health', '/live', '/ready']

export function auth({ config }: Gateway): MiddlewareHandler<RequestEnv> {
  const accepted = config.apiKeys.map(digest)
  const open = new Set(PROBES.map((path) => config.rootPath + path))
  return async function auth(c, next) {
    if (accepted.length > 0 && !open.has(c.req.path)) {
      const bearer = /^Bearer +(\S+)$/i.exec(c.req.header('authorization') ?? '')?.[1]
      const key = bearer ?? c.req.header('x-api-key') // what some clients know instead
      if (key === undefined) throw unauthorized('No API key was given. Send it as "Authorization: Bearer <key>".')
      const given = digest(key)
      // Every key is compared, so that the time does not tell which one came close.
      const matches = accepted.filter((each) => timingSafeEqual(each, given)).length
      if (matches === 0) throw unauthorized('The API key is not valid.')
    }
    c.set('tenant', 'default')
    await next()
  }
}

function digest(key: string): Buffer {
  return createHash('sha256').update(key).digest()
}

function unauthorized(message: string): ApiError {
  return new ApiError(401, 'invalid_api_key', null, message, { 'www-authenticate': 'Bearer' })
}
