// First in, last out: gives every request an id (x-request-id of every answer, errors included), counts it and writes one
// log line. A client's own id is logged beside ours, never used.
import type { MiddlewareHandler } from 'hono'
import { routePath } from 'hono/route'
import type { Gateway, RequestEnv } from '../context.ts'

export function requestId(gateway: Gateway): MiddlewareHandler<RequestEnv> {
  return async function requestId(c, next) {
    const id = `req_${gateway.random(12).toString('hex')}`
    const startedAt = gateway.clock.monotonic()
    c.set('requestId', id)
    c.header('x-request-id', id)
    if (gateway.draining) c.header('connection', 'close')
    await next()
    const { status } = c.res
    const handler = status === 404 ? 'unknown' : routePath(c, -1)
    gateway.metrics.requests.inc({ handler, method: c.req.method, status })
    const ms = Math.round(gateway.clock.monotonic() - startedAt)
    const { tenant, model } = c.var
    const clientId = c.req.header('x-client-request-id') ?? c.req.header('x-request-id')
    const line = {
      id,
      clientId: clientId?.slice(0, 128),
      tenant,
      model,
      method: c.req.method,
      path: c.req.path,
      status,
    }
    gateway.log.info({ ...line, ms }, 'request')
  }
}
