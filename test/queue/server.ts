// The servers that queue tests run against: the embedded one always, a real one where it is installed.
import { type RedisServer, type RedisServerOptions, startRedisServer } from '../../queue/server.ts'

export const noServer = 'redis-server is not installed; to run this half of the suite: apt-get install redis-server'

/** Null where there is no redis-server (or valkey-server); tests then skip, saying `noServer`. */
export function testServer(options: Partial<RedisServerOptions> = {}): Promise<RedisServer | null> {
  return startRedisServer({ path: process.env.PATH ?? '', ...options })
}
