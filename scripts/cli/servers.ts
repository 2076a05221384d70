// Starts a gateway or an engine for the commands that serve, and tells on stderr what takes time.
import type { EngineConfig } from '../../engine/config.ts'
import { startEngine } from '../../engine/main.ts'
import type { GatewayConfig } from '../../gateway/config.ts'
import { startGateway } from '../../gateway/main.ts'
import { systemClock } from '../../queue/clock.ts'
import type { Redis } from '../../queue/redis.ts'
import { buildKernels } from '../build.ts'

export function log(line: string): void {
  process.stderr.write(`pagestream: ${line}\n`)
}

export async function launchGateway(config: GatewayConfig, redis: Redis) {
  const gateway = await startGateway(config, redis, systemClock).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EADDRINUSE') {
      throw new Error(`port ${config.port} of ${config.host} is in use; choose another with --port`, { cause: error })
    }
    if (error.code === 'EADDRNOTAVAIL' || error.code === 'EACCES' || error.code === 'ENOTFOUND') {
      throw new Error(`cannot listen on ${config.host}:${config.port}: ${error.message}; see --host and --port`)
    }
    throw error
  })
  const local = ['127.0.0.1', '::1', 'localhost'].includes(config.host)
  if (!local && config.apiKeys.length === 0) {
    log(`${config.host} can be reached from other machines and accepts any key; --api-key KEY to change that`)
  }
  return gateway
}

export async function launchEngine(config: EngineConfig, redis: Redis) {
  await buildKernels({ log })
  const engine = await startEngine(config, redis, systemClock)
  await engine.ready
  return engine
}
