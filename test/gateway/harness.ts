// A gateway with everything behind it but a model: Redis, and an engine that claims jobs through the real verbs and
// answers what the test scripted. Tests talk HTTP to it.
import { readFileSync } from 'node:fs'
import { createApp } from '../../gateway/app.ts'
import { GatewayConfig } from '../../gateway/config.ts'
import { type GatewayServer, type StartOptions, startGateway } from '../../gateway/main.ts'
import type { Card } from '../../queue/card.ts'
import { systemClock } from '../../queue/clock.ts'
import { append, beat, claim, doorbell, type EngineIdentity } from '../../queue/consume.ts'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import type { Finish, Token } from '../../queue/event.ts'
import type { Job } from '../../queue/job.ts'
import { contentHash, registerCard } from '../../queue/models.ts'
import type { Redis } from '../../queue/redis.ts'
import { Streams } from '../../queue/stream.ts'

export type App = ReturnType<typeof createApp>

const folder = new URL('../../scripts/demo/model/', import.meta.url)
export const tokenizerJson = readFileSync(new URL('tokenizer.json', folder), 'utf8')
const tokenizerConfig = JSON.parse(readFileSync(new URL('tokenizer_config.json', folder), 'utf8'))
export const chatTemplate: string = tokenizerConfig.chat_template

export const card: Card = {
  name: 'demo',
  aliases: ['org/demo'],
  revision: '0123456789abcdef',
  numerics: 'fake',
  root: 'demo',
  created: 1_700_000_000,
  maxModelLength: 2048,
  kvTokens: 8192,
  blockSize: 16,
  vocabularySize: 4096,
  tokenizer: contentHash(tokenizerJson),
  chatTemplate: contentHash(chatTemplate),
  specialTokens: { eos_token: '<|im_end|>', pad_token: '<|endoftext|>' },
  eosTokenIds: [2, 0],
  defaults: { temperature: 0.3, topP: 0.9, maxTokens: 256 },
  maxLogprobs: 20,
}

/** What the engine says to a job: per choice its tokens; undefined for a job it must leave unanswered. */
export type Script = (job: Job) => Answer | undefined
export type Answer = {
  choices: Token[][]
  finish?: Finish
  failed?: { code: 'request_failed'; message: string }
  /** Everything in one step, so that it arrives in one message. */
  atOnce?: boolean
}

export const stopped: Finish = { text: '', reason: 'stop', stopReason: null }

/** One token per word, ids from 100. */
export function words(text: string): Token[] {
  return (text.match(/\s*\S+/g) ?? []).map((word, i) => ({ id: 100 + i, text: word }))
}

export const hello: Script = (job) => ({
  choices: Array.from({ length: job.sampling.n }, (_, i) => words(`Hello from choice ${i}`)),
})

/** Claims one job at a time and answers a token per choice and step. */
export class FakeEngine {
  readonly jobs: Job[] = []
  readonly cancelled: string[] = []
  script: Script = hello
  stepMs = 0
  readonly #redis: Redis
  readonly #identity: EngineIdentity
  #stops: (() => void)[] = []
  #held = new Map<string, string>()
  #stopped = false

  constructor(redis: Redis, model = card) {
    this.#redis = redis
    this.#identity = {
      id: `engine-${model.name}`,
      model: model.name,
      revision: model.revision,
      numerics: model.numerics,
    }
  }

  async start(): Promise<void> {
    await this.#beat()
    this.#stops.push(await doorbell(this.#redis, this.#identity.model, () => void this.#work()))
    this.#stops.push(systemClock.every(20, () => void this.#beat()))
    await this.#work()
  }

  stop(): void {
    this.#stopped = true
    for (const stop of this.#stops) stop()
  }

  async #beat(): Promise<void> {
    if (this.#stopped) return
    const { cancelled } = await beat(this.#redis, this.#identity, [...this.#held.keys()], 0, 5000)
    for (const id of cancelled) {
      this.cancelled.push(id)
      this.#held.delete(id)
    }
  }

  async #work(): Promise<void> {
    const claimed = await claim(this.#redis, this.#identity, { tokens: 1_000_000, sequences: 256, prefixes: [] })
    for (const { job, epoch } of claimed) {
      this.jobs.push(job)
      this.#held.set(job.id, epoch)
      void this.#answer(job, epoch)
    }
  }

  async #answer(job: Job, epoch: string): Promise<void> {
    const answer = this.script(job)
    if (!answer) return
    const { choices, finish = stopped, failed, atOnce = false } = answer
    if (atOnce) {
      const parts = choices.map((tokens, choice) => ({ choice, from: 0, tokens, ...(failed ? {} : { finish }) }))
      const ending = failed ? { failed } : { usage: this.#ending(job, choices, finish).usage }
      await append(this.#redis, this.#identity, [{ id: job.id, epoch, choices: parts, ...ending }])
      this.#held.delete(job.id)
      return
    }
    const steps = Math.max(...choices.map((tokens) => tokens.length))
    for (let step = 0; step < steps; step++) {
      if (this.stepMs > 0) await systemClock.sleep(this.stepMs)
      if (this.#stopped || !this.#held.has(job.id)) return
      const parts = choices.flatMap((tokens, choice) =>
        step < tokens.length ? [{ choice, from: step, tokens: [tokens[step]!] }] : [],
      )
      await append(this.#redis, this.#identity, [{ id: job.id, epoch, choices: parts }])
    }
    this.#held.delete(job.id)
    const ending = failed ? { choices: [], failed } : this.#ending(job, choices, finish)
    await append(this.#redis, this.#identity, [{ id: job.id, epoch, ...ending }])
  }

  #ending(job: Job, choices: Token[][], finish: Finish) {
    const completionTokens = choices.reduce((sum, tokens) => sum + tokens.length, 0)
    return {
      choices: choices.map((tokens, choice) => ({ choice, from: tokens.length, tokens: [], finish })),
      usage: { promptTokens: job.prompt.length, completionTokens, cachedTokens: 4 },
    }
  }
}

export type Served = { url: string; server: GatewayServer; redis: Redis; engine: FakeEngine; close(): Promise<void> }

/** A listening gateway and its engine. */
export async function serve(config: Partial<GatewayConfig> = {}, model: Card = card): Promise<Served> {
  const redis = createEmbeddedRedis(systemClock)
  await registerCard(redis, model, { tokenizer: tokenizerJson, chatTemplate: model.chatTemplate ? chatTemplate : null })
  const server = await startGateway(GatewayConfig.parse({ port: 0, ...config }), redis, systemClock)
  const engine = new FakeEngine(redis, model)
  await engine.start()
  const close = async () => {
    engine.stop()
    await server.close()
    await redis.close()
  }
  return { url: `http://127.0.0.1:${server.port}`, server, redis, engine, close }
}

/** The app without a server, for what needs no engine. */
export async function app(config: Partial<GatewayConfig> = {}, model: Card = card): Promise<App> {
  const redis = createEmbeddedRedis(systemClock)
  await registerCard(redis, model, { tokenizer: tokenizerJson, chatTemplate })
  return appOn(redis, config)
}

export async function appOn(
  redis: Redis,
  config: Partial<GatewayConfig> = {},
  options: StartOptions = {},
): Promise<App> {
  // Tests that never generate need no events: a stream that is closed keeps no timer running.
  const streams = await Streams.open(redis, 'test', systemClock)
  await streams.close()
  return createApp({
    config: GatewayConfig.parse(config),
    redis,
    streams,
    clock: systemClock,
    name: 'test',
    ...options,
  })
}

export function post(body: unknown, headers: Record<string, string> = {}): RequestInit {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  return { method: 'POST', body: text, headers: { 'content-type': 'application/json', ...headers } }
}

export const chatBody = (more: object = {}) => ({
  model: 'demo',
  messages: [{ role: 'user', content: 'Say hi.' }],
  ...more,
})

/** The `data:` payloads of a finished stream, parsed; '[DONE]' stays text. */
// biome-ignore lint/suspicious/noExplicitAny: tests read fields of foreign JSON
export function events(text: string): any[] {
  const lines = text.split('\n').filter((line) => line.startsWith('data: '))
  return lines.map((line) => (line === 'data: [DONE]' ? '[DONE]' : JSON.parse(line.slice(6))))
}

/** Polls; for what another party does in its own time. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 200; i++) {
    if (await condition()) return
    await systemClock.sleep(10)
  }
  throw new Error('it did not happen within 2 s')
}
