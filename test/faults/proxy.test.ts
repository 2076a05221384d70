// The fault proxy does to a connection what it is told, and nothing else.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { FaultProxy } from '../doubles/proxy.ts'

/** An echo server behind a proxy, and a client of it that collects what comes back. */
async function echo(t: TestContext, random?: () => number) {
  const server = createServer((socket) => socket.on('error', () => {}).pipe(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const proxy = await FaultProxy.open({ host: '127.0.0.1', port: (server.address() as AddressInfo).port }, random)
  t.after(async () => {
    await proxy.close()
    server.close()
  })
  return { proxy, client: () => dial(proxy.port) }
}

async function dial(port: number) {
  const socket = connect(port, '127.0.0.1')
  socket.setNoDelay()
  const received: Buffer[] = []
  socket.on('data', (bytes) => received.push(bytes))
  const closed = new Promise<string>((resolve) => {
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'))
    socket.on('close', () => resolve('closed'))
  })
  await once(socket, 'connect')
  const text = () => Buffer.concat(received).toString()
  const until = async (length: number) => {
    while (text().length < length) await once(socket, 'data')
    return text()
  }
  return { socket, closed, text, until }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

async function timed(run: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await run()
  return performance.now() - start
}

async function ask(client: { socket: Socket; until(length: number): Promise<string> }, text: string, length: number) {
  client.socket.write(text)
  return client.until(length)
}

test('without a toxic bytes pass unchanged, and so does the end', async (t) => {
  const { client } = await echo(t)
  const one = await client()
  const text = 'x'.repeat(3_000_000)
  assert.equal(await ask(one, text, text.length), text)
  one.socket.end()
  assert.equal(await one.closed, 'closed')
})

test('latency delays a direction and jitter never reorders it', async (t) => {
  let draw = 0
  const { proxy, client } = await echo(t, () => (draw = (draw + 0.61) % 1))
  const one = await client()
  proxy.set('up', { latencyMs: 100, jitterMs: 60 })
  const ms = await timed(async () => {
    for (let i = 0; i < 10; i++) {
      one.socket.write(String(i))
      await pause(5)
    }
    await one.until(10)
  })
  assert.equal(one.text(), '0123456789')
  assert.ok(ms >= 90 && ms < 1500, `${ms} ms`)
})

test('a black hole in one direction holds its bytes, and they arrive when it is healed', async (t) => {
  const { proxy, client } = await echo(t)
  const one = await client()
  await ask(one, 'a', 1)
  proxy.set('down', { blackhole: true })
  one.socket.write('b')
  await pause(80)
  assert.equal(one.text(), 'a')
  proxy.heal()
  assert.equal(await one.until(2), 'ab')
})

test('a reset breaks open connections, and new ones are accepted', async (t) => {
  const { proxy, client } = await echo(t)
  const one = await client()
  await ask(one, 'a', 1)
  proxy.reset()
  assert.equal(await one.closed, 'ECONNRESET')
  assert.equal(await ask(await client(), 'b', 1), 'b')
})

test('while it refuses, a connection is reset before a byte', async (t) => {
  const { proxy, client } = await echo(t)
  proxy.refuse()
  // The RST may come with the handshake or right after it.
  const outcome = client().then(
    ({ closed }) => closed,
    (error: NodeJS.ErrnoException) => error.code,
  )
  assert.equal(await outcome, 'ECONNRESET')
  proxy.heal()
  assert.equal(await ask(await client(), 'b', 1), 'b')
})

test('a limit of data breaks the connection and lets no more than that through', async (t) => {
  const { proxy, client } = await echo(t)
  const one = await client()
  await ask(one, 'ab', 2)
  proxy.set('down', { limit: 3 })
  one.socket.write('cdefgh')
  await one.closed
  // A reset may overtake bytes on their way, never add to them.
  assert.ok('abcde'.startsWith(one.text()), one.text())
})

test('bandwidth stretches a transfer', async (t) => {
  const { proxy, client } = await echo(t)
  const one = await client()
  proxy.set('up', { bandwidth: 100_000 })
  const ms = await timed(() => ask(one, 'x'.repeat(20_000), 20_000))
  assert.ok(ms >= 180, `${ms} ms`)
})

test('a slow close keeps the connection open for that long', async (t) => {
  const { proxy, client } = await echo(t)
  const one = await client()
  proxy.set('up', { slowCloseMs: 120 })
  const ms = await timed(() => {
    one.socket.end()
    return one.closed
  })
  assert.ok(ms >= 110, `${ms} ms`)
  assert.equal(proxy.open, 0)
})
