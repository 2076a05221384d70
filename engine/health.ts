// The engine's own port: /metrics for Prometheus, /live, /ready and /health for whoever restarts or routes. Health is
// progress, not life: an engine whose step hangs or whose lease cannot be renewed is not healthy, however well the
// process answers.
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

export type Probes = {
  /** Why the process should be restarted, or null. */
  dead(): string | null
  /** Why no work should be expected of it now, or null. */
  unready(): string | null
  metrics(): Promise<string>
}

/** Rejects with one clear line when the port cannot be had. */
export async function startHealth(
  probes: Probes,
  address: { host: string; port: number },
): Promise<{ port: number; close(): Promise<void> }> {
  const server = createServer(async (request, response) => {
    const path = request.url?.split('?')[0]
    const answer = (status: number, text: string, type = 'text/plain; charset=utf-8') =>
      response.writeHead(status, { 'content-type': type }).end(text)
    const probe = (trouble: string | null) => answer(trouble === null ? 200 : 503, `${trouble ?? 'ok'}\n`)
    if (path === '/metrics') answer(200, await probes.metrics(), 'text/plain; version=0.0.4; charset=utf-8')
    else if (path === '/live') probe(probes.dead())
    else if (path === '/ready' || path === '/health') probe(probes.dead() ?? probes.unready())
    else answer(404, 'there are /metrics, /health, /live and /ready\n')
  })
  await listen(server, address)
  const close = async () => {
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  }
  return { port: (server.address() as AddressInfo).port, close }
}

function listen(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const reason = error.code === 'EADDRINUSE' ? 'the port is in use; choose another' : error.message
      reject(new Error(`--metrics-port: cannot listen on ${host}:${port}: ${reason}`))
    })
    server.listen(port, host, resolve)
  })
}
