// A gateway process: the app on a port, drained on close. Started by the CLI (scripts/), which owns signals and exit codes.
//
// close(): /ready and new generations answer 503 at once, so that load balancers turn away; requests under way go on for
// at most drainTimeoutMs, and what is left then ends with an explicit error and is cancelled in its engine.
import { randomBytes } from 'node:crypto'
import { type Server, STATUS_CODES } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import type { Clock } from '../queue/clock.ts'
import type { Redis } from '../queue/redis.ts'
import { Streams } from '../queue/stream.ts'
import { createRoutes } from './app.ts'
import type { GatewayConfig } from './config.ts'
import { createGateway, type Gateway, type GatewayOptions } from './context.ts'
import { ApiError, unavailable } from './errors.ts'

/** How often drain looks whether the last request has ended. */
const DRAIN_POLL_MS = 20

export type GatewayServer = { port: number; close(): Promise<void> }
export type StartOptions = Pick<GatewayOptions, 'log' | 'extraMetrics' | 'obstacle'>

/** Rejects with one clear line when the address cannot be had. */
export async function startGateway(
  config: GatewayConfig,
  redis: Redis,
  clock: Clock,
  options: StartOptions = {},
): Promise<GatewayServer> {
  const name = randomBytes(9).toString('base64url')
  const streams = await Streams.open(redis, name, clock)
  const gateway = createGateway({ config, redis, streams, clock, name, ...options })
  const server = createServer(gateway)
  try {
    await listen(server, config)
  } catch (error) {
    await streams.close()
    throw error
  }
  const { port } = server.address() as AddressInfo
  return { port, close: () => close(gateway, server) }
}

function createServer(gateway: Gateway): Server {
  const server = createAdaptorServer({
    fetch: createRoutes(gateway).fetch,
    serverOptions: { maxHeaderSize: 16 * 1024, headersTimeout: 20_000, requestTimeout: 120_000 },
  }) as Server
  server.keepAliveTimeout = gateway.config.keepAliveTimeoutMs
  server.on('clientError', refuseBytes)
  return server
}

function listen(server: Server, { host, port }: GatewayConfig): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const reason = error.code === 'EADDRINUSE' ? 'the port is in use; choose another with --port' : error.message
      reject(new Error(`cannot listen on ${host}:${port}: ${reason}`))
    })
    server.listen(port, host, resolve)
  })
}

/** What is not HTTP, or has too large a header, never reaches the app; its envelope is written by hand. */
function refuseBytes(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy()
    return
  }
  const refusal =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? new ApiError(431, null, null, 'The request headers are larger than 16 KB.')
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? new ApiError(408, null, null, 'The request did not arrive in time.')
        : new ApiError(400, null, null, 'The request is not valid HTTP/1.1.')
  const body = refusal.envelope()
  const head = `HTTP/1.1 ${refusal.status} ${STATUS_CODES[refusal.status]}\r\ncontent-type: application/json\r\n`
  socket.end(`${head}content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`)
}

async function close(gateway: Gateway, server: Server): Promise<void> {
  const { clock, config } = gateway
  gateway.draining = true
  server.closeIdleConnections()
  const deadline = clock.monotonic() + config.drainTimeoutMs
  while (gateway.open.size > 0 && clock.monotonic() < deadline) await clock.sleep(DRAIN_POLL_MS)
  const cutOff = unavailable('gateway_shutdown', 'The gateway shut down before the answer was complete.', 1000)
  for (const request of [...gateway.open]) request.fail(cutOff)

  const closed = new Promise((resolve) => server.close(resolve))
  await clock.sleep(DRAIN_POLL_MS) // the last bytes leave
  server.closeAllConnections()
  await closed
  await gateway.streams.close()
  await gateway.pool.close()
}
