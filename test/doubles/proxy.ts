// A TCP proxy that misbehaves on demand: it stands between a process under test and its Redis (or between a client and a
// gateway) and is told in process what to do with each direction. `up` flows from the client to the server. Settings
// hold for connections that are open and for those to come; bytes keep their order whatever happens to them.
import { type AddressInfo, connect, createServer, type NetConnectOpts, type Server, type Socket } from 'node:net'

export type Toxic = {
  /** Every byte arrives this much later, give or take `jitterMs`. */
  latencyMs?: number
  jitterMs?: number
  /** Nothing gets through. What was sent meanwhile arrives after heal(), as TCP would repeat it. */
  blackhole?: boolean
  /** Bytes per second. */
  bandwidth?: number
  /** The connection breaks after this many more bytes. */
  limit?: number
  /** The end of the connection is passed on this much later. */
  slowCloseMs?: number
}

export type Direction = 'up' | 'down'

const TICK_MS = 10
const MAX_QUEUED = 1 << 20

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/** One direction of one connection. */
class Pipe {
  readonly #to: Socket
  readonly #from: Socket
  readonly #toxic: () => Toxic
  readonly #random: () => number
  #queue: { due: number; bytes: Buffer | null }[] = []
  #queued = 0
  #pumping = false
  passed = 0

  constructor(from: Socket, to: Socket, toxic: () => Toxic, random: () => number) {
    this.#from = from
    this.#to = to
    this.#toxic = toxic
    this.#random = random
    from.on('data', (bytes: Buffer) => this.#push(bytes))
    from.on('end', () => this.#push(null))
  }

  #push(bytes: Buffer | null): void {
    const { latencyMs = 0, jitterMs = 0, slowCloseMs = 0 } = this.#toxic()
    const delay = latencyMs + jitterMs * (2 * this.#random() - 1) + (bytes === null ? slowCloseMs : 0)
    const due = Math.max(performance.now() + delay, this.#queue.at(-1)?.due ?? 0)
    this.#queue.push({ due, bytes })
    this.#queued += bytes?.length ?? 0
    if (this.#queued > MAX_QUEUED) this.#from.pause()
    if (!this.#pumping) this.#pump()
  }

  async #pump(): Promise<void> {
    this.#pumping = true
    while (this.#queue.length > 0 && !this.#to.destroyed) {
      const { due, bytes } = this.#queue[0]!
      const early = due - performance.now()
      if (early > 0) await sleep(early)
      while (this.#toxic().blackhole && !this.#to.destroyed) await sleep(TICK_MS)
      this.#queue.shift()
      if (bytes === null) this.#to.end()
      else await this.#pass(bytes)
    }
    this.#pumping = false
  }

  async #pass(bytes: Buffer): Promise<void> {
    this.#queued -= bytes.length
    for (let sent = 0; sent < bytes.length && !this.#to.destroyed; ) {
      const { bandwidth, limit } = this.#toxic()
      const slice = bandwidth ? Math.max(1, Math.floor((bandwidth * TICK_MS) / 1000)) : bytes.length
      const allowed = limit === undefined ? slice : Math.min(slice, limit - this.passed)
      if (allowed <= 0) {
        this.#from.resetAndDestroy()
        this.#to.resetAndDestroy()
        return
      }
      const part = bytes.subarray(sent, sent + allowed)
      this.passed += part.length
      sent += part.length
      if (!this.#to.write(part)) await this.#drained()
      if (bandwidth) await sleep(TICK_MS)
    }
    if (this.#queued <= MAX_QUEUED) this.#from.resume()
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#to.off('drain', done)
        this.#to.off('close', done)
        resolve()
      }
      this.#to.on('drain', done)
      this.#to.on('close', done)
    })
  }
}

type Connection = { client: Socket; server: Socket; pipes: Record<Direction, Pipe> }

export class FaultProxy {
  readonly #server: Server
  readonly #connections = new Set<Connection>()
  #toxics: Record<Direction, Toxic> = { up: {}, down: {} }
  #refusing = false
  /** Connections accepted since the start. */
  accepted = 0

  /** `random` in [0, 1) makes the jitter. */
  static async open(target: NetConnectOpts, random: () => number = () => 0.5): Promise<FaultProxy> {
    const server = createServer({ allowHalfOpen: true, noDelay: true })
    const proxy = new FaultProxy(server, target, random)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  private constructor(server: Server, target: NetConnectOpts, random: () => number) {
    this.#server = server
    server.on('connection', (client) => this.#accept(client, target, random))
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  get open(): number {
    return this.#connections.size
  }

  /** Replaces what is done to a direction, or to both. */
  set(direction: Direction | 'both', toxic: Toxic): void {
    for (const each of direction === 'both' ? (['up', 'down'] as const) : [direction]) {
      this.#toxics[each] = toxic
      for (const { pipes } of this.#connections) pipes[each].passed = 0
    }
  }

  /** No connection is accepted any more, until heal(). */
  refuse(): void {
    this.#refusing = true
  }

  heal(): void {
    this.#refusing = false
    this.set('both', {})
  }

  /** Every connection breaks with a RST, as when the peer's host has forgotten it. */
  reset(): void {
    for (const { client, server } of this.#connections) {
      client.resetAndDestroy()
      server.resetAndDestroy()
    }
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.reset()
    await closed
  }

  #accept(client: Socket, target: NetConnectOpts, random: () => number): void {
    if (this.#refusing) {
      client.resetAndDestroy()
      return
    }
    this.accepted++
    const server = connect({ ...target, allowHalfOpen: true, noDelay: true })
    const pipes = {
      up: new Pipe(client, server, () => this.#toxics.up, random),
      down: new Pipe(server, client, () => this.#toxics.down, random),
    }
    const connection = { client, server, pipes }
    this.#connections.add(connection)
    for (const [socket, peer] of [
      [client, server],
      [server, client],
    ] as const) {
      socket.on('error', () => peer.destroy())
      socket.on('close', () => {
        this.#connections.delete(connection)
        // An ended peer may still be owed bytes; a broken one is owed nothing.
        if (!socket.readableEnded) peer.destroy()
      })
    }
  }
}
