// The network between the processes and Redis, as TCP gives it: what is sent on a connection arrives in order, late, or
// not at all when the connection breaks; between connections there is no order. A Link is one process's connections and
// behaves as queue/redis.ts: a command ends within the timeout, one in flight when its connection breaks is sent again,
// and a subscriber that was cut off misses what was published meanwhile.
import { RedisUnreachable } from '../../queue/errors.ts'
import type { Argument, Redis, Reply } from '../../queue/redis.ts'
import type { ScriptName } from '../../queue/scripts.ts'
import type { Random } from '../bench/random.ts'
import type { Process } from './process.ts'
import type { Timeline } from './timeline.ts'

const COMMAND_TIMEOUT_MS = 2000

/** Chances per command or message, changed by faults. */
export type Weather = {
  /** Upper end of the time one way, ms. */
  delayMs: number
  /** The reply never comes; the command times out although it was carried out. */
  lostReply: number
  /** The command reaches the server twice. */
  duplicate: number
}
export const fairWeather: Weather = { delayMs: 2, lostReply: 0, duplicate: 0 }

export type Network = {
  timeline: Timeline
  random: Random
  weather: Weather
  /** The server; refuses what it refuses. */
  server: { redis: Redis; isUp: boolean }
}

/** One direction of one connection. */
class Pipe {
  readonly #network: Network
  readonly #process: Process
  #free = 0
  #life = 0
  #isBlocked = false
  #held: (() => void)[] = []

  constructor(network: Network, process: Process) {
    this.#network = network
    this.#process = process
  }

  send(arrive: () => void): void {
    const { timeline, random, weather } = this.#network
    const life = this.#life
    const delay = 0.1 + weather.delayMs * random.uniform() + this.#process.slowness * random.uniform()
    this.#free = Math.max(this.#free, timeline.now + delay)
    timeline.at(this.#free, () => {
      if (life !== this.#life) return
      if (this.#isBlocked) this.#held.push(arrive)
      else arrive()
    })
  }

  /** Like a partition: what arrives waits, and comes when the network heals. */
  block(): void {
    this.#isBlocked = true
  }

  unblock(): void {
    this.#isBlocked = false
    for (const arrive of this.#held.splice(0)) arrive()
  }

  /** What is under way is lost. */
  reset(): void {
    this.#life++
    this.#held = []
    this.#free = 0
  }
}

type Call = { run: () => Promise<Reply>; settle(outcome: Promise<Reply>): void }
type Subscription = { channel: string; listener: (message: Buffer) => void; stop: () => void }

export class Link implements Redis {
  readonly #network: Network
  readonly #process: Process
  readonly requests: Pipe
  readonly replies: Pipe
  readonly messages: Pipe
  readonly #calls = new Set<Call>()
  readonly #subscriptions = new Set<Subscription>()
  readonly #reconnected = new Set<() => void>()
  #isConnected = true
  #isListening = true

  constructor(network: Network, process: Process) {
    this.#network = network
    this.#process = process
    this.requests = new Pipe(network, process)
    this.replies = new Pipe(network, process)
    this.messages = new Pipe(network, process)
    process.onDeath(() => this.#vanish())
  }

  command(name: string, ...args: Argument[]): Promise<Reply> {
    return this.#call(() => this.#network.server.redis.command(name, ...args))
  }

  script(name: ScriptName, keys: string[], args: Argument[]): Promise<Reply> {
    return this.#call(() => this.#network.server.redis.script(name, keys, args))
  }

  async subscribe(channel: string, listener: (message: Buffer) => void): Promise<() => void> {
    const subscription: Subscription = { channel, listener, stop: () => {} }
    this.#subscriptions.add(subscription)
    await this.#call(async () => {
      if (this.#isListening) await this.#listen(subscription)
      return null
    })
    return () => {
      this.#subscriptions.delete(subscription)
      subscription.stop()
    }
  }

  onReconnect(listener: () => void): () => void {
    this.#reconnected.add(listener)
    return () => this.#reconnected.delete(listener)
  }

  async close(): Promise<void> {
    this.#vanish()
  }

  /** The commands' connection breaks and is made again. */
  breakCommands(): void {
    if (!this.#isConnected || this.#process.isDead) return
    this.#isConnected = false
    this.requests.reset()
    this.replies.reset()
    this.#again(() => {
      this.#isConnected = true
      for (const call of this.#calls) this.#send(call)
    })
  }

  /** The subscriber's connection breaks and is made again. */
  breakMessages(): void {
    if (!this.#isListening || this.#process.isDead) return
    this.#isListening = false
    this.messages.reset()
    for (const { stop } of this.#subscriptions) stop()
    this.#again(() => {
      this.#isListening = true
      for (const subscription of this.#subscriptions) this.#listen(subscription)
      for (const listener of this.#reconnected) listener()
    })
  }

  #again(connect: () => void): void {
    const { timeline, random, server } = this.#network
    timeline.after(20 + 400 * random.uniform(), () => {
      if (!server.isUp) this.#again(connect)
      else this.#process.deliver(connect)
    })
  }

  async #listen(subscription: Subscription): Promise<void> {
    const { channel, listener } = subscription
    subscription.stop()
    const { redis } = this.#network.server
    const hear = (message: Buffer) => this.messages.send(() => this.#process.deliver(() => listener(message)))
    subscription.stop = await redis.subscribe(channel, hear)
  }

  #call(run: () => Promise<Reply>): Promise<Reply> {
    if (this.#process.isDead) return new Promise(() => {})
    if (!this.#isConnected) return Promise.reject(new RedisUnreachable())
    const { promise, resolve, reject } = Promise.withResolvers<Reply>()
    const stop = this.#process.clock.after(COMMAND_TIMEOUT_MS, () => reject(new Error('Command timed out')))
    const call: Call = {
      run,
      settle: (outcome) => {
        stop()
        this.#calls.delete(call)
        outcome.then(resolve, reject)
      },
    }
    this.#calls.add(call)
    this.#send(call)
    return promise
  }

  #send(call: Call): void {
    const { random, weather, server } = this.#network
    this.requests.send(() => {
      if (!server.isUp) return
      const outcome = call.run()
      // It may be an error that nobody hears of.
      outcome.catch(() => {})
      if (random.uniform() < weather.duplicate) this.requests.send(() => server.isUp && call.run().catch(() => {}))
      if (random.uniform() < weather.lostReply) return void this.#calls.delete(call)
      this.replies.send(() => this.#process.deliver(() => call.settle(outcome)))
    })
  }

  #vanish(): void {
    for (const pipe of [this.requests, this.replies, this.messages]) pipe.reset()
    for (const { stop } of this.#subscriptions) stop()
    this.#subscriptions.clear()
    this.#calls.clear()
  }
}
