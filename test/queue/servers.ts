// Runs a suite against the embedded Redis, on a clock that jumps, and against a real server, where time is waited out.
import { after, before, describe } from 'node:test'
import { type Clock, systemClock } from '../../queue/clock.ts'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import { connectRedis, type Redis } from '../../queue/redis.ts'
import { type RedisServer, type RedisServerOptions, startRedisServer } from '../../queue/server.ts'
import { ManualClock } from './clock.ts'

export const noServer = 'redis-server is not installed; to run this half of the suite: apt-get install redis-server'

/** Null where there is no redis-server (or valkey-server); tests then skip, saying `noServer`. */
export function testServer(options: Partial<RedisServerOptions> = {}): Promise<RedisServer | null> {
  return startRedisServer({ path: process.env.PATH ?? '', ...options })
}

export type World = {
  redis: Redis
  clock: Clock
  /** Lets `ms` pass. */
  pass(ms: number): Promise<void>
  /** Resolves when `condition` holds; throws after two seconds. */
  until(condition: () => boolean): Promise<void>
  /** A model of the test's own, so that no test sees another's keys. */
  model(): string
}

export async function onBothServers(title: string, suite: (world: World) => void): Promise<void> {
  let count = 0
  const model = () => `org/model {${count++}}`

  describe(`${title}, embedded`, () => {
    const clock = new ManualClock()
    const until = async (condition: () => boolean) => {
      for (let waited = 0; !condition(); waited += 10) {
        if (waited > 2000) throw new Error('waited two seconds in vain')
        await clock.advance(10)
      }
    }
    suite({ redis: createEmbeddedRedis(clock), clock, pass: (ms) => clock.advance(ms), until, model })
  })

  const server = await testServer()
  describe(`${title}, real server`, { skip: server === null && noServer }, () => {
    const world = { clock: systemClock, pass: systemClock.sleep, until: untilOnSystemClock, model } as unknown as World
    before(async () => {
      world.redis = await connectRedis(server!.url)
    })
    after(async () => {
      await world.redis.close()
      await server!.close()
    })
    suite(world)
  })
}

export async function untilOnSystemClock(condition: () => boolean): Promise<void> {
  const deadline = systemClock.monotonic() + 2000
  while (!condition()) {
    if (systemClock.monotonic() > deadline) throw new Error('waited two seconds in vain')
    await systemClock.sleep(2)
  }
}
