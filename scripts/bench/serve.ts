// `pagestream bench serve`: loads any OpenAI-compatible server (Pagestream, vLLM, llama-server) and reports what
// `vllm bench serve` reports, with its flags and its result keys, so that one command compares them all.
import { appendFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Agent, request } from 'undici'
import type { Clock } from '../../queue/clock.ts'
import { arrivalTimes } from './arrivals.ts'
import { type Measurement, send, type Target } from './client.ts'
import { type Detokenize, loadDataset, type Sample, type Tokenize } from './dataset.ts'
import { type Options, parseOptions } from './options.ts'
import { render, summarize } from './report.ts'

/** Exit code: 0 when every request succeeded, 1 otherwise. */
export async function benchServe(
  argv: string[],
  clock: Clock,
  print: (text: string) => void = (text) => process.stdout.write(text),
): Promise<number> {
  const options = parseOptions(argv)
  const base = (options['base-url'] ?? `http://${options.host}:${options.port}`).replace(/\/+$/, '')
  const dispatcher = new Agent({
    connections: null,
    keepAliveTimeout: 60_000,
    connect: { rejectUnauthorized: !options.insecure },
  })
  const headers = Object.fromEntries(options.header.map((pair) => pair.split(/=(.*)/s, 2) as [string, string]))
  const server = new Server(base, headers, dispatcher)

  try {
    await server.waitUntilReady(options['ready-check-timeout-sec'], clock)
    const model = options['served-model-name'] ?? options.model ?? (await server.firstModel())
    const samples = await loadDataset(options, server.tokenize(model), server.detokenize(model))
    const endpoint =
      options.endpoint ?? (options.backend === 'openai-chat' ? '/v1/chat/completions' : '/v1/completions')
    const target: Target = { url: base + endpoint, model, headers, dispatcher, seconds: () => clock.monotonic() / 1000 }

    for (let i = 0; i < options['num-warmups']; i++)
      await send(options, target, samples[i % samples.length]!, `warmup-${i}`)
    const begin = clock.monotonic()
    target.seconds = () => (clock.monotonic() - begin) / 1000
    const measurements = await run(options, target, samples, clock)
    const duration = target.seconds()

    const result = summarize(options, model, measurements, duration, new Date(clock.now()).toISOString())
    print(`${render(options, result)}\n`)
    const failures = measurements.filter((m) => !m.success)
    if (failures[0]) process.stderr.write(`${failures.length} requests failed; the first: ${failures[0].error}\n`)
    await save(options, model, result)
    return failures.length ? 1 : 0
  } finally {
    await dispatcher.destroy()
  }
}

async function run(options: Options, target: Target, samples: Sample[], clock: Clock): Promise<Measurement[]> {
  const times = arrivalTimes(options)
  const limit = options['max-concurrency'] ?? Number.POSITIVE_INFINITY
  const waiting: (() => void)[] = []
  let running = 0
  let finished = 0
  const progress = () => {
    finished++
    if (!options['disable-tqdm'] && process.stderr.isTTY)
      process.stderr.write(`\r${finished}/${samples.length} requests${finished === samples.length ? '\n' : ''}`)
  }
  return Promise.all(
    samples.map(async (sample, i) => {
      const delay = times[i]! * 1000
      if (delay > 0) await clock.sleep(delay)
      if (running >= limit) await new Promise<void>((resolve) => waiting.push(resolve))
      else running++
      const measurement = await send(options, target, sample, `${options['request-id-prefix']}${i}`)
      const next = waiting.shift()
      if (next) next()
      else running--
      progress()
      return measurement
    }),
  )
}

/** The questions a benchmark asks the server besides the load itself. */
class Server {
  private readonly base: string
  private readonly headers: Record<string, string>
  private readonly dispatcher: Agent

  constructor(base: string, headers: Record<string, string>, dispatcher: Agent) {
    this.base = base
    this.headers = headers
    this.dispatcher = dispatcher
  }

  private async ask<T>(path: string, body?: unknown): Promise<T> {
    const response = await request(this.base + path, {
      method: body ? 'POST' : 'GET',
      headers: { ...this.headers, 'content-type': 'application/json' },
      dispatcher: this.dispatcher,
      ...(body ? { body: JSON.stringify(body) } : {}),
    })
    const text = await response.body.text()
    if (response.statusCode !== 200) throw new Error(`${path}: HTTP ${response.statusCode}: ${text.slice(0, 300)}`)
    return JSON.parse(text) as T
  }

  async waitUntilReady(seconds: number, clock: Clock): Promise<void> {
    const deadline = clock.monotonic() + seconds * 1000
    while (seconds > 0) {
      const error = await this.ask('/v1/models').then(
        () => null,
        (reason: Error) => reason,
      )
      if (!error) return
      if (clock.monotonic() >= deadline)
        throw new Error(`${this.base} is not ready after ${seconds} s: ${error.message}`)
      await clock.sleep(500)
    }
  }

  async firstModel(): Promise<string> {
    const models = await this.ask<{ data: { id: string }[] }>('/v1/models')
    if (!models.data[0]) throw new Error(`${this.base} serves no model`)
    return models.data[0].id
  }

  /** `prompt` is vLLM's and our field, `content` llama-server's; each ignores the other's. */
  tokenize(model: string): Tokenize {
    return async (text) =>
      (
        await this.ask<{ tokens: number[] }>('/tokenize', {
          model,
          prompt: text,
          content: text,
          add_special_tokens: false,
        })
      ).tokens
  }

  detokenize(model: string): Detokenize {
    return async (tokens) => {
      const answer = await this.ask<{ prompt?: string; content?: string }>('/detokenize', { model, tokens })
      return answer.prompt ?? answer.content ?? ''
    }
  }
}

async function save(options: Options, model: string, result: Record<string, unknown>): Promise<void> {
  if (!options['save-result'] && !options['save-detailed'] && !options['append-result']) return
  const rate = Number.isFinite(options['request-rate']) ? options['request-rate'] : 'inf'
  const stamp = String(result.date).replace(/\D/g, '').slice(0, 14)
  const name =
    options['result-filename'] ??
    `${options.label ?? options.backend}-${rate}qps-${model.split('/').at(-1)}-${stamp}.json`
  await mkdir(options['result-dir'], { recursive: true })
  const path = join(options['result-dir'], name)
  if (options['append-result']) await appendFile(path, `${JSON.stringify(result)}\n`)
  else await writeFile(path, `${JSON.stringify(result)}\n`)
  process.stderr.write(`result written to ${path}\n`)
}
