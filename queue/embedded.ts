// A Redis in this process.
import type { Clock } from './clock.ts'
import type { Redis } from './redis.ts'

export function createEmbeddedRedis(clock: Clock): Redis {
  throw new Error(`embedded Redis is being written ${clock.now()}`)
}
