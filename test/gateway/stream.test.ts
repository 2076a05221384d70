// Streams over real sockets: their shape, their failures, clients that hang up or do not read.
import assert from 'node:assert/strict'
import { request } from 'node:http'
import { connect } from 'node:net'
import { after, before, beforeEach, test } from 'node:test'
import { systemClock } from '../../queue/clock.ts'
import { chatBody, events, hello, post, type Served, serve, until, words } from './harness.ts'

let served: Served
before(async () => {
  served = await serve({ headersAfterMs: 100, keepAliveCommentMs: 30 })
})
beforeEach(() => {
  served.engine.script = hello
  served.engine.stepMs = 0
  served.engine.jobs.length = 0
})
after(() => served.close())

const stream = (more: object = {}) =>
  fetch(`${served.url}/v1/chat/completions`, post(chatBody({ stream: true, ...more })))

/** The socket of a stream whose headers and first bytes have arrived. */
async function openStream(body: object) {
  const text = JSON.stringify(chatBody({ stream: true, ...body }))
  const socket = connect(Number(new URL(served.url).port), '127.0.0.1')
  const head = `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n`
  socket.write(`${head}content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`)
  socket.on('error', () => {})
  return socket
}

test('a stream is role, text, finish, usage, [DONE]', async () => {
  const response = await stream({ stream_options: { include_usage: true } })
  assert.equal(response.headers.get('content-type'), 'text/event-stream; charset=utf-8')
  assert.equal(response.headers.get('x-accel-buffering'), 'no')
  assert.match(response.headers.get('x-request-id') ?? '', /^req_/)
  const chunks = events(await response.text())
  assert.equal(chunks.pop(), '[DONE]')
  const { usage, choices } = chunks.pop()
  assert.deepEqual(choices, [])
  assert.equal(usage.completion_tokens, 4)
  for (const chunk of chunks) {
    assert.equal(chunk.usage, null)
    assert.equal(chunk.object, 'chat.completion.chunk')
    assert.equal(chunk.id, chunks[0].id)
    assert.equal(chunk.created, chunks[0].created)
  }
  const deltas = chunks.map((chunk) => chunk.choices[0].delta)
  assert.deepEqual(deltas[0], { role: 'assistant', content: '' })
  assert.deepEqual(deltas.at(-1), {})
  assert.equal(deltas.map((delta) => delta.content ?? '').join(''), 'Hello from choice 0')
  assert.deepEqual(
    chunks.map((chunk) => chunk.choices[0].finish_reason),
    [null, null, null, null, null, 'stop'],
  )
})

test('without include_usage no chunk has a usage field', async () => {
  for (const chunk of events(await (await stream()).text()).slice(0, -1)) assert.ok(!('usage' in chunk))
})

test('continuous usage counts the tokens of every chunk', async () => {
  const options = { stream_options: { include_usage: true, continuous_usage_stats: true } }
  const chunks = events(await (await stream(options)).text()).slice(0, -2)
  assert.deepEqual(
    chunks.map((chunk) => chunk.usage.completion_tokens),
    [0, 1, 2, 3, 4, 4],
  )
})

test('two choices share the stream, each with its role and its finish', async () => {
  const chunks = events(await (await stream({ n: 2 })).text()).slice(0, -1)
  for (const index of [0, 1]) {
    const own = chunks.map((chunk) => chunk.choices[0]).filter((choice) => choice.index === index)
    assert.equal(own[0].delta.role, 'assistant')
    assert.equal(own.at(-1).finish_reason, 'stop')
    assert.equal(own.map((choice) => choice.delta.content ?? '').join(''), `Hello from choice ${index}`)
  }
})

test('text that looks like an event stays inside one JSON string', async () => {
  const text = '\n\ndata: [DONE]\n\n'
  served.engine.script = () => ({ choices: [[{ id: 5, text }]] })
  const chunks = events(await (await stream()).text())
  assert.equal(chunks[1].choices[0].delta.content, text)
  assert.equal(chunks.filter((chunk) => chunk === '[DONE]').length, 1)
})

test('a withheld token sends nothing, unless its id or log-probability was asked for', async () => {
  const token = { id: 5, text: '', logprobs: [{ id: 5, logprob: -1, rank: 1, bytes: [0xf0] }] }
  served.engine.script = () => ({ choices: [[token, { ...token, text: 'x' }]] })
  assert.equal(events(await (await stream()).text()).length, 4)
  const chunks = events(await (await stream({ logprobs: true })).text())
  assert.equal(chunks.length, 5)
  assert.equal(chunks[1].choices[0].logprobs.content.length, 1)
})

test('headers go out after their time and comments keep a silent stream open', async () => {
  served.engine.script = () => undefined
  const response = await stream()
  assert.equal(response.status, 200)
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  const { value } = await reader.read()
  assert.equal(value, ': keep-alive\n\n')
  await reader.cancel()
})

test('a failure before the first token is an HTTP status, even for a stream', async () => {
  served.engine.script = () => ({ choices: [[]], failed: { code: 'request_failed', message: 'No.' } })
  const response = await stream()
  assert.equal(response.status, 500)
  assert.equal(response.headers.get('content-type'), 'application/json')
})

test('an answer that arrives in one message is a whole stream, and a failure in it an HTTP status', async () => {
  served.engine.script = () => ({ choices: [words('a b c')], atOnce: true })
  const chunks = events(await (await stream()).text())
  assert.equal(chunks.at(-1), '[DONE]')
  assert.equal(chunks.length, 6)
  const failed = { code: 'request_failed' as const, message: 'No.' }
  served.engine.script = () => ({ choices: [words('a b')], failed, atOnce: true })
  assert.equal((await stream()).status, 500)
})

test('a failure after the first token is an error event and a broken connection, never a clean end', async () => {
  served.engine.script = () => ({ choices: [words('a b')], failed: { code: 'request_failed', message: 'No.' } })
  served.engine.stepMs = 5
  const response = await stream()
  served.engine.stepMs = 0
  assert.equal(response.status, 200)
  let text = ''
  await assert.rejects(async () => {
    for await (const part of response.body!.pipeThrough(new TextDecoderStream())) text += part
  })
  const chunks = events(text)
  assert.equal(chunks.at(-1).error.message, 'No.')
  assert.ok(!chunks.includes('[DONE]'))
})

test('a stream whose engine has gone silent ends with an error after its time', async () => {
  const impatient = await serve({ requestTimeoutMs: 150 })
  impatient.engine.script = () => ({ choices: [words('one two three four')] })
  impatient.engine.stepMs = 100 // each token in time, so the first 400 ms pass
  const whole = await fetch(`${impatient.url}/v1/chat/completions`, post(chatBody({ stream: true })))
  assert.equal(events(await whole.text()).at(-1), '[DONE]')
  impatient.engine.script = () => {
    impatient.engine.stop() // dies with the job claimed
    return { choices: [words('one two')] }
  }
  const response = await fetch(`${impatient.url}/v1/chat/completions`, post(chatBody()))
  assert.equal(response.status, 503)
  await impatient.close()
})

test('a client that hangs up is cancelled within 250 ms, streaming or not', async () => {
  served.engine.script = () => ({ choices: [words('word '.repeat(2000))] })
  served.engine.stepMs = 5
  for (const body of [{ stream: true }, { stream: false }]) {
    const before = served.engine.jobs.length
    const text = JSON.stringify(chatBody(body))
    const client = request(`${served.url}/v1/chat/completions`, post(text) as object)
    client.on('error', () => {})
    client.end(text)
    await until(() => served.engine.jobs.length > before)
    await systemClock.sleep(50)
    client.destroy()
    const hungUp = systemClock.monotonic()
    const { id } = served.engine.jobs.at(-1)!
    await until(() => served.engine.cancelled.includes(id))
    assert.ok(systemClock.monotonic() - hungUp < 250)
  }
})

test('a reader that stops reading holds a bounded amount and loses nothing when it goes on', async () => {
  const long = 'x'.repeat(10_000)
  served.engine.script = () => ({ choices: [Array.from({ length: 1200 }, (_, i) => ({ id: i, text: long }))] })
  const socket = await openStream({ max_tokens: 500 })
  socket.pause()
  await systemClock.sleep(300)
  let text = ''
  socket.setEncoding('utf8').on('data', (part) => {
    text += part
  })
  socket.resume()
  await until(() => text.includes('[DONE]'))
  assert.equal(text.match(/x{10000}/g)?.length, 1200, 'more than may be held for it')
  socket.destroy()
})

test('a reader that has stalled too long is cut off and its job cancelled', async () => {
  const impatient = await serve({ stalledReaderMs: 50 })
  const long = 'x'.repeat(100_000)
  impatient.engine.script = () => ({ choices: [Array.from({ length: 1000 }, (_, i) => ({ id: i, text: long }))] })
  impatient.engine.stepMs = 2
  const body = JSON.stringify(chatBody({ stream: true, max_tokens: 1500 }))
  const socket = connect(Number(new URL(impatient.url).port), '127.0.0.1')
  socket.on('error', () => {})
  socket.pause()
  socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  await until(() => impatient.engine.cancelled.length === 1)
  socket.destroy()
  await impatient.close()
})
