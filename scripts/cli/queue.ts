// Finds the queue of a server command: the Redis it was told, else a redis-server of its own, else the embedded one.
import type { Clock } from '../../queue/clock.ts'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import { connectRedis, type Redis } from '../../queue/redis.ts'
import { startRedisServer } from '../../queue/server.ts'
import { UsageError } from './flags.ts'

export type Queue = {
  redis: Redis
  /** null when embedded. */
  url: string | null
  /** For the log. */
  description: string
  close(): Promise<void>
}

export async function connectQueue(url: string | undefined): Promise<Queue> {
  if (!url) throw new UsageError('--redis URL (or REDIS_URL) is needed: gateways and engines meet in Redis')
  if (url === 'embedded') throw new UsageError('--redis embedded works with serve only: it lives in one process')
  const redis = await connectRedis(url)
  return { redis, url, description: 'the Redis given', close: () => redis.close() }
}

export async function findQueue(url: string | undefined, path: string, clock: Clock): Promise<Queue> {
  if (url && url !== 'embedded') return connectQueue(url)
  const server = url === 'embedded' ? null : await startRedisServer({ path, clock })
  if (!server) {
    const redis = createEmbeddedRedis(clock)
    const description = 'embedded in this process, gone when it ends (install redis-server or give --redis URL)'
    return { redis, url: null, description, close: () => redis.close() }
  }
  const redis = await connectRedis(server.url)
  const description = 'a redis-server of its own, gone when it ends (--redis URL for one that lasts)'
  const close = async () => {
    await redis.close()
    await server.close()
  }
  return { redis, url: server.url, description, close }
}
