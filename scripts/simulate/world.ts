// One seed: three engines, two gateways, a Redis and some two dozen clients live through twelve seconds of faults, then
// the world heals, and everything must come to an end: each client with what it was promised, Redis and the engines with
// nothing left of it.

import type { Slice } from '../../engine/scheduler/scheduler.ts'
import type { Generation } from '../../gateway/generation.ts'
import { reap } from '../../queue/consume.ts'
import type { Job } from '../../queue/job.ts'
import { deadKey, gatewaysKey, jobKey, journalKey, poolKey } from '../../queue/keys.ts'
import { poolState } from '../../queue/models.ts'
import { Random } from '../bench/random.ts'
import { type Ablation, unchanged } from './ablations.ts'
import { Client } from './client.ts'
import { EngineNode, MODEL } from './engine-node.ts'
import { type Faulty, faults } from './faults.ts'
import { GatewayNode } from './gateway-node.ts'
import { fairWeather, type Link, type Network } from './network.ts'
import { isPoison, isPoisonId, randomJob } from './requests.ts'
import { Server } from './server.ts'
import { Timeline } from './timeline.ts'

const STORM_MS = 12_000
const ARRIVALS_MS = 9000
/** After the storm: until every client has its end, and until nothing is left behind. */
const PATIENCE_MS = 40_000
/** Longer than anything in Redis is kept for an ended job. */
const RETENTION_MS = 90_000
/** Of the faults that a seed enables. */
const SHARE = 0.35
const ENGINES = 3
const GATEWAYS = 2

/** What becomes of a request that engines die of; and how often one must stop that runs it alone. */
const GIVEN_UP = /the engines running this request stopped/
const STOPS_ALONE = 2

export type Outcome = {
  seed: number
  faults: string[]
  isDeterministic: boolean
  violations: string[]
  requests: number
  tokens: number
  /** Requests, poison aside, that were queued and ended with an error, with its text. */
  errors: string[]
}

export type SimulationOptions = {
  ablation?: Ablation
  trace?: (text: string) => void
  /** Faults to draw from. */
  only?: string[]
}

export async function simulate(seed: number, options: SimulationOptions = {}): Promise<Outcome> {
  const world = new World(seed, options)
  return world.run()
}

type Visit = { client: Client; gateway: GatewayNode; generation: Generation | null; isLeft: boolean }

class World implements Faulty {
  readonly random: Random
  readonly weather = { ...fairWeather }
  readonly server: Server
  readonly #seed: number
  readonly #timeline = new Timeline()
  readonly #network: Network
  readonly #ablation: Ablation
  readonly #trace: (text: string) => void
  readonly #isDeterministic: boolean
  readonly #faults: string[]
  readonly #engines: (EngineNode | null)[] = []
  readonly #gateways: (GatewayNode | null)[] = []
  readonly #visits: Visit[] = []
  readonly #violations: string[] = []
  #lives = 0
  /** Faults so far that may have stopped an engine, the poison aside. */
  #stops = 0
  #isClosing = false

  constructor(seed: number, { ablation = unchanged, trace, only }: SimulationOptions) {
    this.#seed = seed
    this.random = new Random(seed)
    this.#ablation = ablation
    this.#trace = (text) => trace?.(`${this.#timeline.now.toFixed(1).padStart(9)} ${text}`)
    this.server = new Server(this.#timeline, ablation.scripts, trace ? this.#trace : null)
    const { random, weather, server } = this
    this.#network = { timeline: this.#timeline, random, weather, server }
    this.#isDeterministic = random.uniform() < 0.5
    this.#faults = Object.keys(faults).filter((name) => (only?.includes(name) ?? true) && random.uniform() < SHARE)
  }

  async run(): Promise<Outcome> {
    try {
      await this.#live()
    } catch (error) {
      this.#violations.push(`an exception: ${(error as Error).stack}`)
    }
    return this.#outcome()
  }

  async #live(): Promise<void> {
    const { random } = this
    for (let i = 0; i < GATEWAYS; i++) this.#startGateway(i)
    for (let i = 0; i < ENGINES; i++) this.#startEngine(i)
    const clients = random.integer(12, 24)
    for (let i = 0; i < clients; i++) {
      this.#timeline.at(ARRIVALS_MS * random.uniform(), () => this.#arrive(randomJob(random, `job-${i}`)))
    }
    for (const name of this.#faults) {
      for (let i = random.integer(1, 3); i > 0; i--) faults[name]!(this)
    }
    await this.#timeline.run(STORM_MS)
    this.#trace('the storm is over')
    // Commands of the storm may still arrive, and clients come back.
    await this.#timeline.run(STORM_MS + 3000)
    const end = STORM_MS + PATIENCE_MS
    await this.#timeline.run(end, () => this.#isAnswered())
    await this.#rest(end)
    await this.#close()
  }

  during(begin: () => void, [least, most]: [number, number] = [0, 0], end = () => {}): void {
    const { random } = this
    const start = 300 + (STORM_MS - 600) * random.uniform()
    this.#timeline.at(start, begin)
    this.#timeline.at(Math.min(STORM_MS - 100, start + least + (most - least) * random.uniform()), end)
  }

  engine() {
    const node = this.random.pick(this.#engines)
    if (!node || node.process.isDead) return undefined
    this.#trace(`fault at ${node.process.name}`)
    this.#stops++
    return {
      process: node.process,
      links: [node.links.main, node.links.beat],
      hang: () => {
        node.engine.hangs = true
      },
      drain: () => node.process.deliver(() => node.drain()),
    }
  }

  gateway() {
    const node = this.random.pick(this.#gateways)
    if (!node || node.process.isDead) return undefined
    this.#trace(`fault at ${node.name}`)
    return { process: node.process, links: [node.link] }
  }

  breakAll(): void {
    this.#trace('every connection breaks')
    this.#stops++
    for (const node of this.#engines) for (const link of node ? Object.values(node.links) : []) reset(link)
    for (const node of this.#gateways) if (node) reset(node.link)
  }

  jumpRedisClock(ms: number): void {
    this.server.skew += ms
    this.#stops++
  }

  poison(): void {
    this.#arrive(randomJob(this.random, `poison-${this.#visits.length}`))
  }

  abortSomeone(): void {
    const open = this.#visits.filter(({ client }) => !client.end)
    if (open.length === 0) return
    const visit = this.random.pick(open)
    visit.gateway.process.deliver(() => {
      if (visit.client.end) return
      this.#trace(`the client of ${visit.client.job.id} hangs up`)
      visit.isLeft = true
      this.#cutIfLeft(visit)
    })
  }

  /** The gateway hears of it once the request is queued (gateway/answer.ts). */
  #cutIfLeft({ client, generation, isLeft }: Visit): void {
    if (!isLeft || !generation || client.end) return
    client.close('gone')
    generation.cut()
  }

  #startEngine(slot: number): void {
    if (this.#isClosing) return
    const life = this.#lives++
    const node = new EngineNode({
      network: this.#network,
      life,
      isDeterministic: this.#isDeterministic,
      isDeadly: ({ sequence }: Slice) => isPoison(sequence.request),
      onViolation: (what) => this.#violations.push(what),
      trace: this.#trace,
    })
    this.#engines[slot] = node
    node.process.onDeath(() => {
      this.#trace(`${node.process.name} died`)
      this.#timeline.after(200 + 2000 * this.random.uniform(), () => this.#startEngine(slot))
    })
    node.start().catch((error) => {
      this.#trace(`${node.process.name} cannot start: ${error.message}`)
      node.process.kill()
    })
  }

  #startGateway(slot: number): void {
    if (this.#isClosing) return
    const node = new GatewayNode(this.#network, this.#lives++)
    this.#gateways[slot] = node
    node.process.onDeath(() => {
      this.#trace(`${node.name} died`)
      for (const { client, gateway } of this.#visits) if (gateway === node && !client.end) this.#break(client)
      this.#timeline.after(200 + 1000 * this.random.uniform(), () => this.#startGateway(slot))
    })
    node.start(this.#ablation.wrapGateway).catch(() => node.process.kill())
  }

  /** The connection is gone; many a client comes back with the same request. */
  #break(client: Client): void {
    client.close('broken')
    if (this.random.uniform() < 0.4) return
    const { job } = client
    this.#timeline.after(50 + 1500 * this.random.uniform(), () => {
      this.#trace(`the client of ${job.id} comes back`)
      this.#arrive({ ...job }, client)
    })
  }

  #arrive(job: Job, before: Client | null = null): void {
    const client = new Client(job, before)
    const gateway = this.random.pick(this.#gateways)
    if (!gateway?.isReady) return
    const visit: Visit = { client, gateway, generation: null, isLeft: false }
    this.#visits.push(visit)
    gateway.process.deliver(() => {
      job.gateway = gateway.name
      job.maxWaitMs = 60_000
      gateway.generate(job, client).then(
        (generation) => {
          visit.generation = generation
          this.#cutIfLeft(visit)
        },
        (error) => client.close('refused', error.message),
      )
    })
  }

  #isAnswered(): boolean {
    return this.#visits.every(({ client }) => client.end)
  }

  /** Until queue and engines are empty. */
  async #rest(end: number): Promise<void> {
    for (const { client } of this.#visits) if (!client.end) this.#violations.push(await this.#describeStuck(client))
    for (;;) {
      const left = await this.#leftovers()
      if (left.length === 0) return
      if (this.#timeline.now >= end) return void this.#violations.push(...left)
      await this.#timeline.run(this.#timeline.now + 250)
    }
  }

  async #describeStuck({ job, received }: Client): Promise<string> {
    const { redis } = this.server
    const known = (await redis.command('HMGET', jobKey(MODEL, job.id), 'st', 'own', 'ep', 'end')) as (Buffer | null)[]
    const lengths = Array.from({ length: job.sampling.n }, (_, i) =>
      redis.command('LLEN', journalKey(MODEL, job.id, i)),
    )
    const journals = (await Promise.all(lengths)).join(' ')
    return `request ${job.id}: no end after ${received} tokens (stuck); in Redis ${known.join(' ')}, journals ${journals}`
  }

  /** What queue, gateways and engines still hold. */
  async #leftovers(): Promise<string[]> {
    const { queued, running } = await poolState(this.server.redis, MODEL)
    const left = queued + running > 0 ? [`left in the queue: ${queued} waiting, ${running} running`] : []
    for (const node of this.#gateways) if (node?.open) left.push(`${node.name} keeps ${node.open} requests`)
    for (const node of this.#engines) {
      if (!node || node.process.isDead) continue
      const leak = node.held > 0 ? `holds ${node.held} jobs` : node.engine.leak()
      if (leak) left.push(`${node.process.name}: ${leak}`)
    }
    return left
  }

  async #close(): Promise<void> {
    this.#isClosing = true
    for (const node of this.#engines) node?.drain()
    await this.#timeline.run(this.#timeline.now + 2000)
    for (const node of this.#gateways) node?.close()
    await this.#timeline.run(this.#timeline.now + RETENTION_MS)
    await reap(this.server.redis, MODEL)
    const kept = [poolKey(MODEL), gatewaysKey(MODEL), deadKey(MODEL)]
    const left = this.server.keys().filter((key) => !kept.includes(key))
    if (left.length > 0) this.#violations.push(`keys left in Redis: ${left.join(' ')}`)
    const { queuedTokens } = await poolState(this.server.redis, MODEL)
    if (queuedTokens !== 0) this.#violations.push(`the empty queue counts ${queuedTokens} tokens`)
  }

  #outcome(): Outcome {
    const clients = this.#visits.map(({ client }) => client)
    for (const client of clients) {
      this.#violations.push(...client.violations(this.#isDeterministic))
      if (!this.#faults.includes('redis-rollback')) this.#violations.push(...client.changes())
      const { job, end, error } = client
      if (isPoisonId(job.id) && end === 'done') this.#violations.push(`request ${job.id}: the poison was answered`)
      if (!isPoisonId(job.id) && this.#stops < STOPS_ALONE && GIVEN_UP.test(error ?? '')) {
        this.#violations.push(`request ${job.id}: taken for the poison that it ran beside`)
      }
    }
    const failed = clients.filter(({ end, job }) => end === 'failed' && !isPoisonId(job.id))
    return {
      seed: this.#seed,
      faults: this.#faults,
      isDeterministic: this.#isDeterministic,
      violations: this.#violations,
      requests: clients.length,
      tokens: clients.reduce((sum, client) => sum + client.received, 0),
      errors: failed.map(({ job, error }) => `${job.id}: ${error}`),
    }
  }
}

function reset(link: Link): void {
  link.breakCommands()
  link.breakMessages()
}
