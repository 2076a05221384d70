// The process around the app: its port, bytes that are not HTTP, drain.
import assert from 'node:assert/strict'
import { request } from 'node:http'
import { connect } from 'node:net'
import { test } from 'node:test'
import { GatewayConfig } from '../../gateway/config.ts'
import { startGateway } from '../../gateway/main.ts'
import { systemClock } from '../../queue/clock.ts'
import { chatBody, events, post, serve, until, words } from './harness.ts'

test('an occupied port is one clear line', async () => {
  const served = await serve()
  const config = GatewayConfig.parse({ port: served.server.port })
  const expected = {
    message: `cannot listen on 127.0.0.1:${config.port}: the port is in use; choose another with --port`,
  }
  await assert.rejects(startGateway(config, served.redis, systemClock), expected)
  await served.close()
})

test('unknown and impossible options are refused', () => {
  assert.throws(() => GatewayConfig.parse({ prot: 1 }), /prot/)
  assert.throws(() => GatewayConfig.parse({ rootPath: 'llm/' }), /\/llm/)
})

test('headers over 16 KB are 431 and what is not HTTP is 400, in the envelope', async () => {
  const served = await serve()
  const status = await new Promise((resolve, reject) => {
    const headers = { 'x-large': 'h'.repeat(20_000) }
    const client = request(`${served.url}/live`, { headers }, (response) => resolve(response.statusCode))
    client.on('error', reject).end()
  })
  assert.equal(status, 431)
  const answer = await new Promise<string>((resolve) => {
    let text = ''
    const socket = connect(served.server.port, '127.0.0.1', () => socket.write('GARBAGE\r\n\r\n'))
    socket.on('data', (part) => {
      text += part
    })
    socket.on('close', () => resolve(text))
  })
  assert.match(answer, /^HTTP\/1\.1 400 /)
  assert.equal(JSON.parse(answer.split('\r\n\r\n')[1]!).error.type, 'invalid_request_error')
  await served.close()
})

test('closing answers /ready 503 and new work 503 at once, and lets open streams finish', async () => {
  const served = await serve()
  served.engine.script = () => ({ choices: [words('one two three four five six')] })
  served.engine.stepMs = 30
  const response = await fetch(`${served.url}/v1/chat/completions`, post(chatBody({ stream: true })))
  const closing = served.server.close()
  const ready = await fetch(`${served.url}/ready`)
  assert.equal(ready.status, 503)
  assert.equal(ready.headers.get('connection'), 'close')
  assert.equal((await fetch(`${served.url}/live`)).status, 200)
  const refused = await fetch(`${served.url}/v1/chat/completions`, post(chatBody()))
  assert.equal(refused.status, 503)
  assert.equal(((await refused.json()) as { error: { code: string } }).error.code, 'shutting_down')
  const chunks = events(await response.text())
  assert.equal(chunks.at(-1), '[DONE]')
  await closing
  await assert.rejects(fetch(`${served.url}/live`))
  served.engine.stop()
  await served.redis.close()
})

test('what has not finished by the drain timeout ends with an error and is cancelled', async () => {
  const served = await serve({ drainTimeoutMs: 50 })
  served.engine.script = () => ({ choices: [words('word '.repeat(1000))] })
  served.engine.stepMs = 10
  const response = await fetch(`${served.url}/v1/chat/completions`, post(chatBody({ stream: true })))
  const closing = served.server.close()
  let text = ''
  await assert.rejects(async () => {
    for await (const part of response.body!.pipeThrough(new TextDecoderStream())) text += part
  })
  assert.equal(events(text).at(-1).error.code, 'gateway_shutdown')
  await closing
  await until(() => served.engine.cancelled.length === 1)
  served.engine.stop()
  await served.redis.close()
})
