// What may go wrong. Every seed enables a random subset (swarm testing: a mixture of everything hides what one fault does
// alone), each a few times within the first part of the run. All of them end when the world heals.
import type { Random } from '../bench/random.ts'
import type { Link } from './network.ts'
import type { Process } from './process.ts'

/** What a fault may touch. */
export type Faulty = {
  random: Random
  /** Runs `begin` at a random moment of the storm, and `end` so many ms later or when the storm is over. */
  during(begin: () => void, ms?: [least: number, most: number], end?: () => void): void
  /** A process that lives now, or undefined. */
  engine(): { process: Process; links: Link[]; hang(): void; drain(): void } | undefined
  gateway(): { process: Process; links: Link[] } | undefined
  weather: { delayMs: number; lostReply: number; duplicate: number }
  server: { isUp: boolean; isFull: boolean; remember(): void; rollBack(): void }
  /** Breaks every connection. */
  breakAll(): void
  /** Sends a request whose computation kills the engine. */
  poison(): void
  abortSomeone(): void
  jumpRedisClock(ms: number): void
}

type Fault = (world: Faulty) => void

const anyProcess = (world: Faulty) => (world.random.uniform() < 0.6 ? world.engine() : world.gateway())

/** The weather turns bad for a while. */
const spell = (change: (weather: Faulty['weather']) => void, calm: (weather: Faulty['weather']) => void) => {
  return (world: Faulty) =>
    world.during(
      () => change(world.weather),
      [500, 4000],
      () => calm(world.weather),
    )
}

/** One direction of a machine's traffic, or of one of its connections, stops. */
const partition = (pipes: (link: Link) => Link['requests'][]) => (world: Faulty) => {
  let blocked: Link['requests'][] = []
  world.during(
    () => {
      const links = anyProcess(world)?.links ?? []
      const some = world.random.uniform() < 0.5 ? links : links.slice(0, 1)
      blocked = some.flatMap(pipes)
      for (const pipe of blocked) pipe.block()
    },
    [300, 4000],
    () => {
      for (const pipe of blocked) pipe.unblock()
    },
  )
}

export const faults: Record<string, Fault> = {
  'engine-crash': (world) => world.during(() => world.engine()?.process.kill()),
  /** SIGSTOP: a zombie that wakes. */
  'engine-freeze': (world) => {
    let process: Process | undefined
    world.during(
      () => {
        process = world.engine()?.process
        process?.freeze()
      },
      [300, 5000],
      () => process?.wake(),
    )
  },
  /** A kernel that never returns. */
  'engine-hang': (world) => world.during(() => world.engine()?.hang()),
  'engine-drain': (world) => world.during(() => world.engine()?.drain()),
  'gateway-death': (world) => world.during(() => world.gateway()?.process.kill()),
  'client-abort': (world) => world.during(() => world.abortSomeone()),
  'partition-from': partition((link) => [link.requests]),
  'partition-to': partition((link) => [link.replies, link.messages]),
  'lost-reply': spell(
    (weather) => {
      weather.lostReply = 0.03
    },
    (weather) => {
      weather.lostReply = 0
    },
  ),
  duplicate: spell(
    (weather) => {
      weather.duplicate = 0.1
    },
    (weather) => {
      weather.duplicate = 0
    },
  ),
  reorder: spell(
    (weather) => {
      weather.delayMs = 150
    },
    (weather) => {
      weather.delayMs = 2
    },
  ),
  'connection-reset': (world) => world.during(() => anyProcess(world)?.links[0]?.breakCommands()),
  'subscriber-drop': (world) => world.during(() => anyProcess(world)?.links[0]?.breakMessages()),
  'redis-restart': (world) =>
    world.during(
      () => {
        world.server.isUp = false
        world.breakAll()
      },
      [50, 2500],
      () => {
        world.server.isUp = true
      },
    ),
  /** Redis comes back without the writes of up to 2 s. */
  'redis-rollback': (world) => {
    const { server, random } = world
    let isRemembered = false
    world.during(
      () => {
        isRemembered = true
        server.remember()
      },
      [100, 2000],
      () => {
        if (!isRemembered) return
        server.rollBack()
        world.breakAll()
        if (random.uniform() < 0.5) world.abortSomeone()
      },
    )
  },
  'slow-node': (world) => {
    let process: Process | undefined
    world.during(
      () => {
        process = anyProcess(world)?.process
        if (process) process.slowness = 50 + 250 * world.random.uniform()
      },
      [500, 4000],
      () => {
        if (process) process.slowness = 0
      },
    )
  },
  'out-of-memory': (world) =>
    world.during(
      () => {
        world.server.isFull = true
      },
      [200, 2000],
      () => {
        world.server.isFull = false
      },
    ),
  /** NTP or an operator sets a host's clock, by up to an hour. */
  'clock-jump': (world) =>
    world.during(() => {
      const process = anyProcess(world)?.process
      if (process) process.skew = 3_600_000 * (2 * world.random.uniform() - 1)
    }),
  'redis-clock-jump': (world) =>
    world.during(() => {
      world.jumpRedisClock(world.random.pick([-2000, 5000]) * world.random.uniform())
    }),
  poison: (world) => world.during(() => world.poison()),
}
