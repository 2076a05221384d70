// `npm run bench:gateway -- [part …]`: what the path from socket to queue and back costs, with engines that have no
// model, a real Redis and a gateway process of its own. CPU is that of the whole gateway process, from /proc. Parts:
// latency, rate, tokens, memory, drops, streams, aborts; without a name all of them, one after the other.
import { fork } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import { Lab, type Process, pause, until } from '../faults/lab.ts'
import { Random } from './random.ts'
import { Caller, message, received, type StreamResult, streamOnce } from './sockets.ts'

const TICKS_PER_SECOND = 100

/** Seconds of CPU, all threads. */
function cpu({ pid }: Process): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

function rssMegabytes({ pid }: Process): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) / 1024
}

function openSockets({ pid }: Process): number {
  return readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('socket:')
    } catch {
      return false
    }
  }).length
}

function quantile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN
}

const print = (line: string) => console.log(line)
const seconds = (ms: number) => (ms / 1000).toFixed(1)

/** A server that answers at once: what a client pays without us. In a process of its own. */
async function startDirect(): Promise<{ port: number; close(): void }> {
  const child = fork(fileURLToPath(import.meta.url), ['--direct'])
  const port = await new Promise<number>((resolve) => child.once('message', (port) => resolve(port as number)))
  return { port, close: () => child.kill() }
}

function serveDirect(): void {
  const server = createServer((incoming, outgoing) => {
    incoming.resume().on('end', () => {
      const body = JSON.stringify({ choices: [{ text: 't0' }] })
      outgoing.writeHead(200, { 'content-type': 'application/json', 'content-length': body.length }).end(body)
    })
  })
  server.listen(0, '127.0.0.1', () => process.send?.((server.address() as { port: number }).port))
}

type Bench = { lab: Lab; gateway: Process; engines: Record<string, Process> }

/** Interleaved, so that a neighbour's load falls on both. */
async function latency({ gateway }: Bench): Promise<void> {
  const load = { port: gateway.port, model: 'fake-i0', maxTokens: 1 }
  const direct = await startDirect()
  const [ours, theirs] = await Promise.all([Caller.open(gateway.port), Caller.open(direct.port)])
  const request = message(load, false)
  const streamed = message(load, true)
  const times = { ours: [] as number[], theirs: [] as number[], first: [] as number[], dial: [] as number[] }
  for (let i = 0; i < 1200; i++) {
    times.ours.push(await ours.call(request))
    times.theirs.push(await theirs.call(request))
    if (i % 2 === 0) continue
    times.first.push((await streamOnce(load, streamed)).ttft)
    const start = performance.now()
    const fresh = await Caller.open(direct.port)
    await fresh.call(request)
    fresh.close()
    times.dial.push(performance.now() - start)
  }
  for (const list of Object.values(times)) list.splice(0, list.length >> 2) // warming up
  const row = (name: string, with_: number[], without: number[]) => {
    const [p50, base] = [quantile(with_, 0.5), quantile(without, 0.5)]
    const spread = `p10..p90 ${quantile(with_, 0.1).toFixed(2)}..${quantile(with_, 0.9).toFixed(2)}`
    print(
      `${name}: p50 ${p50.toFixed(2)} ms, direct ${base.toFixed(2)} ms: added ${(p50 - base).toFixed(2)} ms (${spread})`,
    )
  }
  row('latency of a whole answer, 1 client', times.ours, times.theirs)
  row('time to first token, 1 client, connection of its own', times.first, times.dial)
  ours.close()
  theirs.close()
  direct.close()
}

async function rate({ gateway }: Bench): Promise<void> {
  const request = message({ port: gateway.port, model: 'fake-i0', maxTokens: 1 }, false)
  const callers = await Promise.all(Array.from({ length: 64 }, () => Caller.open(gateway.port)))
  const round = async (count: number) => {
    let left = count
    await Promise.all(
      callers.map(async (caller) => {
        while (left-- > 0) await caller.call(request)
      }),
    )
  }
  await round(4000)
  const [before, start] = [cpu(gateway), performance.now()]
  const count = 12_000
  await round(count)
  const [used, ms] = [cpu(gateway) - before, performance.now() - start]
  const each = ((used / count) * 1e6).toFixed(0)
  print(
    `whole answers of 1 token, 64 connections: ${((count / ms) * 1000).toFixed(0)} req/s, ${each} us CPU each: ${(count / used).toFixed(0)} req/s per core`,
  )
  for (const caller of callers) caller.close()
}

/** Streams begin at this rate: all at once, they would measure how fast requests are taken. */
const STREAMS_PER_SECOND = 500

async function openStreams(port: number, model: string, count: number, maxTokens: number): Promise<StreamResult[]> {
  const load = { port, model, maxTokens }
  const request = message(load, true)
  return Promise.all(
    Array.from({ length: count }, async (_, i) => {
      await pause((i / STREAMS_PER_SECOND) * 1000)
      return streamOnce(load, request)
    }),
  )
}

function verdict(all: StreamResult[], maxTokens: number): string {
  const results = all.filter(({ status }) => status === 200)
  const refused = all.length - results.length
  const lost = results.reduce((sum, { tokens }) => sum + Math.max(0, maxTokens - tokens), 0)
  const repeated = results.reduce((sum, { tokens }) => sum + Math.max(0, tokens - maxTokens), 0)
  const disorder = results.reduce((sum, { disorder }) => sum + disorder, 0)
  const open = results.filter(({ done }) => !done).length
  return `${lost} lost, ${repeated} repeated, ${disorder} out of order, ${open} without [DONE]${refused > 0 ? `, ${refused} refused` : ''}`
}

async function tokens({ gateway, lab }: Bench): Promise<void> {
  for (const count of [256, 1000]) {
    const maxTokens = 250
    const all = openStreams(gateway.port, 'fake-i20', count, maxTokens)
    await pause((count / STREAMS_PER_SECOND) * 1000 + 500) // all have begun
    const before = { gateway: cpu(gateway), redis: cpu(lab.redis), tokens: received.tokens, at: performance.now() }
    await pause(2000)
    const streamed = received.tokens - before.tokens
    const perSecond = streamed / ((performance.now() - before.at) / 1000)
    const each = (process: Process, cpuBefore: number) => (((cpu(process) - cpuBefore) / streamed) * 1e6).toFixed(1)
    const cost = `gateway ${each(gateway, before.gateway)} us CPU per token, Redis ${each(lab.redis, before.redis)}`
    const results = await all
    print(
      `${count} streams x ${(perSecond / count).toFixed(1)} tok/s (50 asked): ${cost}; ${verdict(results, maxTokens)}`,
    )
    await pause(500)
  }
}

/** Of streams that are open and silent, after as many have warmed the process up. */
async function memory({ gateway, lab }: Bench): Promise<void> {
  await lab.fake(4000)
  await openStreams(gateway.port, 'fake-i20', 1000, 20)
  await pause(1000)
  const before = rssMegabytes(gateway)
  const all = openStreams(gateway.port, 'fake-i4000', 2000, 2)
  await pause(6500)
  const rss = rssMegabytes(gateway)
  print(`2,000 silent streams: ${(((rss - before) * 1024) / 2000).toFixed(1)} KB each; ${verdict(await all, 2)}`)
}

async function drops({ lab, gateway }: Bench): Promise<void> {
  const redis = await lab.control()
  const all = openStreams(gateway.port, 'fake-i20', 100, 150)
  await pause(1500)
  for (let i = 0; i < 5; i++) {
    await redis.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await redis.command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    await pause(300)
  }
  const results = await all
  const gap = Math.max(...results.map(({ longestGapMs }) => longestGapMs))
  print(
    `100 streams x 150 tokens, all links killed 5 times: ${verdict(results, 150)}; longest gap ${gap.toFixed(0)} ms`,
  )
}

async function streams({ gateway }: Bench): Promise<void> {
  const maxTokens = 200
  const before = rssMegabytes(gateway)
  let most = before
  const watch = setInterval(() => {
    most = Math.max(most, rssMegabytes(gateway))
  }, 200)
  const [cpuBefore, start] = [cpu(gateway), performance.now()]
  const results = await openStreams(gateway.port, 'fake-i50', 2000, maxTokens)
  clearInterval(watch)
  const used = cpu(gateway) - cpuBefore
  const ms = performance.now() - start
  await pause(3000)
  const pace = quantile(
    results.map(({ tokens, ms, ttft }) => (tokens - 1) / ((ms - ttft) / 1000)),
    0.5,
  )
  print(
    `2,000 streams x ${maxTokens} tokens at ${pace.toFixed(1)} tok/s (20 asked) in ${seconds(ms)} s: ${verdict(results, maxTokens)}; ` +
      `gateway ${((used / (2000 * maxTokens)) * 1e6).toFixed(1)} us CPU per token, RSS ${before.toFixed(0)} -> at most ${most.toFixed(0)} -> ${rssMegabytes(gateway).toFixed(0)} MB`,
  )
}

async function aborts({ gateway, engines }: Bench): Promise<void> {
  const load = { port: gateway.port, model: 'fake-i20', maxTokens: 100 }
  const request = message(load, true)
  const random = new Random(10_000)
  const sockets = openSockets(gateway)
  let left = 10_000
  const client = async () => {
    while (left-- > 0) await streamOnce(load, request, random.integer(0, 20))
  }
  const start = performance.now()
  await Promise.all(Array.from({ length: 200 }, client))
  const ms = performance.now() - start
  await pause(1500)
  const engine = engines['fake-i20'] as Process
  const before = engine.output().length
  engine.child.kill('SIGUSR2')
  await until(
    () => 'the count of blocks',
    async () => engine.output().length > before,
  )
  const metrics = await (await fetch(`http://127.0.0.1:${gateway.port}/metrics`)).text()
  const figure = (name: string) => new RegExp(`^${name}(?:{[^}]*fake-i20[^}]*})? (\\d+)`, 'm').exec(metrics)?.[1]
  print(
    `10,000 random aborts in ${seconds(ms)} s: ${engine.output().slice(before).trim()}; gateway sockets ${sockets} -> ${openSockets(gateway)}, ` +
      `open requests ${figure('pagestream_gateway_open_requests')}; queue: ${figure('pagestream_pool_queued')} waiting, ${figure('pagestream_pool_running')} running`,
  )
}

const parts: Record<string, (bench: Bench) => Promise<void>> = { latency, rate, tokens, memory, drops, streams, aborts }

async function main(args: string[]): Promise<void> {
  const unknown = args.filter((arg) => !(arg in parts))
  if (unknown.length > 0)
    throw new Error(`no such part: ${unknown.join(', ')}; there are ${Object.keys(parts).join(', ')}`)
  for (const [name, run] of Object.entries(parts)) {
    if (args.length > 0 && !args.includes(name)) continue
    const lab = new Lab()
    try {
      await lab.startRedis()
      const engines: Record<string, Process> = {}
      for (const ms of [0, 20, 50]) engines[`fake-i${ms}`] = await lab.fake(ms)
      await run({ lab, gateway: await lab.gateway(), engines })
    } finally {
      await lab.close()
    }
  }
}

if (process.argv.includes('--direct')) serveDirect()
else if (import.meta.main) await main(process.argv.slice(2))
