// Rows of gateways that die or drain, and of clients that leave, dawdle, flood or ask for too much.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { poolState } from '../../queue/models.ts'
import { type Answer, ask } from './client.ts'
import { get, type Lab, metric, type Process, pause, until } from './lab.ts'
import { exact, greedy, launch, nothingLeft, type Row, reference } from './row.ts'

const fake = { model: 'fake-i20' }

async function freeBlocks(engine: Process): Promise<[free: number, total: number]> {
  const count = () => engine.output().split('blocks').length
  const before = count()
  engine.child.kill('SIGUSR2')
  await until(
    () => 'the count of blocks',
    async () => count() > before,
  )
  const [, free, total] = /.*blocks (\d+) of (\d+)/s.exec(engine.output()) ?? []
  return [Number(free), Number(total)]
}

const gatewayKilled: Row = {
  id: 'F12',
  fault: 'kill -9 gateway mid-stream, retry with Idempotency-Key',
  async run(lab) {
    await lab.startRedis()
    await lab.fake(20)
    const [first, second] = await Promise.all([lab.gateway(), lab.gateway()])
    const body = greedy(0, 150, fake)
    const headers = { 'idempotency-key': 'one-order-one-bill' }
    let kill: Promise<void> | null = null
    const cut = await ask(first.port, body, {
      headers,
      onToken: (answer) => {
        if (answer.times.length === 50) kill ??= first.kill('SIGKILL')
      },
    })
    await kill
    assert.ok(cut.broken && !cut.done, 'the client must see a broken connection')
    const again = await ask(second.port, body, { headers })
    assert.ok(again.done)
    const expected = await reference(second, [body])
    const outcome = exact([body], [again], expected)
    await nothingLeft(lab, 'fake-i20')
    assert.equal(again.id, cut.id, 'the retry must replay the same generation')
    return outcome
  },
}

const gatewayDrains: Row = {
  id: 'F13',
  fault: 'SIGTERM gateway',
  quick: true,
  async run(lab) {
    await lab.startRedis()
    await lab.fake(20)
    const gateway = await lab.gateway({ flags: ['--drain-timeout-ms', '2500'] })
    const bodies = [greedy(0, 100, fake), greedy(1, 600, fake)]
    const { started, all } = launch([gateway], bodies)
    await started
    await gateway.kill('SIGTERM')
    await pause(100)
    const [ready, live, refused] = await Promise.all([
      get(gateway.port, '/ready'),
      get(gateway.port, '/live'),
      ask(gateway.port, greedy(2, 5, fake)),
    ])
    assert.equal(ready.status, 503, '/ready')
    assert.equal(live.status, 200, '/live')
    assert.equal(refused.status, 503, 'a new request')
    assert.ok(refused.headers['retry-after'])
    const [short, long] = (await all) as [Answer, Answer]
    assert.ok(short.done, 'a stream that fits into the grace ends well')
    assert.equal(long.error, 'gateway_shutdown')
    assert.equal(long.done, false)
    assert.equal(await gateway.exited, 0, 'exit code')
    return { streams: 2 }
  },
}

/** Leaves in a given state and waits for the queue to forget the job. */
async function leave(lab: Lab, gateway: Process, after: number): Promise<number> {
  const redis = await lab.control()
  const running = async () => {
    const { queued, running } = await poolState(redis, 'fake-i20')
    return queued + running
  }
  let left = 0
  const gone = ask(gateway.port, greedy(0, 200, fake), {
    onToken: (answer, request) => {
      if (answer.times.length !== after || left > 0) return
      left = performance.now()
      request.destroy()
    },
  })
  await gone
  await until(
    () => 'the job to end',
    async () => (await running()) === 0,
    2000,
  )
  return performance.now() - left
}

const clientLeaves: Row = {
  id: 'F36',
  fault: 'client disconnects while queued, decoding, after the last token',
  quick: true,
  async run(lab) {
    await lab.startRedis()
    const gateway = await lab.gateway()
    const engine = await lab.fake(20)
    const latencies: number[] = []
    for (const after of [1, 20, 199]) latencies.push(await leave(lab, gateway, after))
    assert.ok(Math.max(...latencies) < 250, `cancelled after ${Math.max(...latencies).toFixed(0)} ms`)

    // While queued: the engine is frozen, so nothing is claimed.
    await engine.kill('SIGSTOP')
    const socket = connect(gateway.port, '127.0.0.1')
    const body = JSON.stringify({ ...greedy(0, 50, fake), stream: true })
    socket.write(`POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n`)
    socket.write(`content-length: ${body.length}\r\n\r\n${body}`)
    const redis = await lab.control()
    const queued = async () => (await poolState(redis, 'fake-i20')).queued
    await until(
      () => 'the job to be queued',
      async () => (await queued()) === 1,
    )
    socket.destroy()
    await until(
      () => 'the job to leave the queue',
      async () => (await queued()) === 0,
      250,
    )
    await engine.kill('SIGCONT')

    // 500 of the 10,000 of the benchmark: aborts at any moment.
    await Promise.all(
      Array.from({ length: 500 }, async (_, i) => {
        await pause((i * 7) % 1500)
        await ask(gateway.port, greedy(i, 60, fake), {
          onToken: (answer, request) => {
            if (answer.times.length >= 1 + ((i * 13) % 40)) request.destroy()
          },
        })
      }),
    )
    await nothingLeft(lab, 'fake-i20')
    await pause(200)
    const [free, total] = await freeBlocks(engine)
    assert.equal(free, total, 'free blocks')
    assert.equal(await metric(gateway, 'pagestream_gateway_open_requests'), 0, 'open requests')
    return { says: `cancelled within ${Math.max(...latencies).toFixed(0)} ms; ${free} of ${total} blocks free` }
  },
}

function rss(process: Process): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${process.pid}/status`, 'utf8'))?.[1] ?? 0) / 1024
}

/** Sends a request and then does not read. */
function stall(port: number, maxTokens: number) {
  const socket = connect({ port, host: '127.0.0.1' })
  socket.pause()
  const closed = new Promise<number>((resolve) => socket.once('close', () => resolve(performance.now())))
  socket.on('error', () => {})
  const body = JSON.stringify({ ...greedy(0, maxTokens, { model: 'fake-i0' }), stream: true })
  const head = 'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n'
  socket.write(`${head}content-length: ${body.length}\r\n\r\n${body}`)
  return { socket, closed }
}

const slowReaders: Row = {
  id: 'F37',
  fault: 'clients that stop reading',
  async run(lab) {
    await lab.startRedis()
    await Promise.all([lab.fake(0), lab.fake(20)])
    const gateway = await lab.gateway({ flags: ['--stalled-reader-ms', '2000'] })
    const bodies = Array.from({ length: 10 }, (_, i) => greedy(i, 250, fake))
    const expected = await reference(gateway, bodies)
    const before = rss(gateway)
    // Far more than the buffers of two sockets, so that the gateway has to hold or to stop.
    const stalled = Array.from({ length: 20 }, () => stall(gateway.port, 4000))
    const { all } = launch([gateway], bodies)
    const answers = await all
    const outcome = exact(bodies, answers, expected)
    const growth = rss(gateway) - before
    await nothingLeft(lab, 'fake-i0')
    for (const { socket } of stalled) socket.destroy()
    await until(
      () => 'the stalled streams to be cut',
      async () => (await metric(gateway, 'pagestream_gateway_open_requests')) === 0,
      5000,
    )
    assert.ok(growth < 150, `the gateway grew by ${growth.toFixed(0)} MB`)
    return { ...outcome, says: `20 stalled readers, +${growth.toFixed(0)} MB` }
  },
}

const slowHeaders: Row = {
  id: 'F38',
  fault: 'slowloris: 1,000 sockets that send half a header',
  async run(lab) {
    await lab.startRedis()
    await lab.fake(0)
    const gateway = await lab.gateway()
    const p99 = async () => {
      const times: number[] = []
      for (let i = 0; i < 100; i++) times.push((await ask(gateway.port, greedy(i, 1, { model: 'fake-i0' }))).ms)
      return times.sort((a, b) => a - b)[98] ?? 0
    }
    await p99() // warm
    const quiet = await p99()
    const sockets = Array.from({ length: 1000 }, () => {
      const socket = connect(gateway.port, '127.0.0.1')
      socket.on('error', () => {})
      socket.write('POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-le')
      return socket
    })
    await pause(500)
    const besieged = await p99()
    for (const socket of sockets) socket.destroy()
    // A floor of 20 ms: below it a shared machine measures itself.
    assert.ok(besieged < Math.max(2 * quiet, 20), `p99 ${quiet.toFixed(1)} -> ${besieged.toFixed(1)} ms`)
    return { says: `p99 ${quiet.toFixed(1)} -> ${besieged.toFixed(1)} ms` }
  },
}

const tooLong: Row = {
  id: 'F43',
  fault: 'prompt > KV pool but within max_model_len',
  quick: true,
  async run(lab) {
    await lab.startRedis()
    await lab.fake(0)
    const gateway = await lab.gateway()
    const prompt = Array.from({ length: 4096 }, () => 65)
    const refused = await ask(gateway.port, greedy(0, 10, { model: 'fake-i0', prompt }))
    assert.equal(refused.status, 400)
    assert.equal(refused.error, 'context_length_exceeded')
    const next = await ask(gateway.port, greedy(0, 10, { model: 'fake-i0' }))
    assert.ok(next.done, 'the queue goes on')
    return { says: '400 context_length_exceeded' }
  },
}

const queueFull: Row = {
  id: 'F44',
  fault: 'all engines busy, queue at its bound',
  quick: true,
  async run(lab) {
    await lab.startRedis()
    const engine = await lab.fake(20)
    const gateway = await lab.gateway({ flags: ['--max-num-queued-reqs', '10'] })
    await engine.kill('SIGSTOP')
    const bodies = Array.from({ length: 60 }, (_, i) => greedy(i, 10, fake))
    const answers: Answer[] = []
    const all = Promise.all(bodies.map(async (body) => answers.push(await ask(gateway.port, body))))
    await until(
      () => 'the refusals',
      async () => answers.length >= 50,
      5000,
    )
    const one = await ask(gateway.port, greedy(0, 10, fake))
    assert.equal(one.status, 503)
    assert.equal(one.error, 'queue_full')
    assert.ok(one.headers['retry-after'])
    assert.ok(one.ms < 50, `refused after ${one.ms.toFixed(0)} ms`)
    await engine.kill('SIGCONT')
    await all
    const served = answers.filter(({ done }) => done).length
    assert.equal(served, 10, 'what was admitted is served')
    return { says: `50 refused, one alone in ${one.ms.toFixed(1)} ms; 10 served` }
  },
}

const hugePrompts: Row = {
  id: 'F45',
  fault: '10 MB prompts from 100 clients',
  async run(lab) {
    await lab.startRedis()
    await lab.fake(20)
    const gateway = await lab.gateway()
    const prompt = 'lorem ipsum '.repeat(800_000)
    const watched = ask(gateway.port, greedy(0, 500, fake))
    await pause(500)
    const answers: Answer[] = []
    const client = async () => {
      for (let i = 0; i < 10; i++) answers.push(await ask(gateway.port, greedy(0, 5, { ...fake, prompt })))
    }
    await Promise.all(Array.from({ length: 10 }, client))
    const statuses = [...new Set(answers.map(({ status }) => status))]
    assert.ok(
      statuses.every((status) => status === 400 || status === 413),
      `statuses ${statuses.join(', ')}`,
    )
    const stream = await watched
    assert.ok(stream.done)
    return { says: `statuses ${statuses.join(', ')}` }
  },
}

const idempotency: Row = {
  id: 'F49',
  fault: 'same Idempotency-Key: another body, and concurrently',
  async run(lab) {
    await lab.startRedis()
    await lab.fake(20)
    const gateway = await lab.gateway()
    const headers = { 'idempotency-key': 'k1' }
    const [one, two] = await Promise.all([
      ask(gateway.port, greedy(0, 40, fake), { headers }),
      ask(gateway.port, greedy(0, 40, fake), { headers }),
    ])
    const other = await ask(gateway.port, greedy(1, 40, fake), { headers })
    assert.equal(other.status, 422, 'another body under the same key')
    assert.equal(one.id, two.id, 'one generation')
    return {}
  },
}

export const gatewayRows: Row[] = [
  gatewayKilled,
  gatewayDrains,
  clientLeaves,
  slowReaders,
  slowHeaders,
  tooLong,
  queueFull,
  hugePrompts,
  idempotency,
]
