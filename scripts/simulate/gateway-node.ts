// One life of a gateway process: the stream state (queue/stream.ts) and the gateway's own generation logic over simulated
// connections; HTTP is left out. A request's client hears what the SSE writer would be told.
import { GatewayConfig } from '../../gateway/config.ts'
import type { Gateway } from '../../gateway/context.ts'
import { Generation, type Listener } from '../../gateway/generation.ts'
import type { Job } from '../../queue/job.ts'
import type { Redis } from '../../queue/redis.ts'
import { Streams } from '../../queue/stream.ts'
import { Link, type Network } from './network.ts'
import { Process } from './process.ts'

const silent = { inc: () => {}, observe: () => {} }

export class GatewayNode {
  readonly process: Process
  readonly link: Link
  readonly name: string
  #gateway: Gateway | null = null
  #streams: Streams | null = null

  constructor(network: Network, life: number) {
    this.name = `gateway-${life}`
    this.process = new Process(this.name, network.timeline)
    this.link = new Link(network, this.process)
  }

  /** Rejects when Redis cannot be reached: then the process ends. */
  async start(wrap: (link: Link) => Redis): Promise<void> {
    const redis = wrap(this.link)
    const { clock } = this.process
    this.#streams = await Streams.open(redis, this.name, clock)
    const gateway: Partial<Gateway> = {
      name: this.name,
      redis,
      clock,
      streams: this.#streams,
      config: GatewayConfig.parse({ requestTimeoutMs: 60_000 }),
      metrics: { rejected: silent, wholeRequest: silent, firstToken: silent, betweenTokens: silent } as never,
      log: { info: () => {}, error: () => {} },
      open: new Set(),
      draining: false,
    }
    this.#gateway = gateway as Gateway
  }

  get isReady(): boolean {
    return this.#gateway !== null && !this.process.isDead
  }

  get open(): number {
    return this.#gateway?.open.size ?? 0
  }

  generate(job: Job, listener: Listener): Promise<Generation> {
    return Generation.start(this.#gateway!, [job], listener)
  }

  async close(): Promise<void> {
    await this.#streams?.close()
    this.process.kill()
  }
}
