// The routes that need no engine, through app.request(): models, probes, keys, errors, CORS, tokenize.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '../../queue/clock.ts'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import type { Redis } from '../../queue/redis.ts'
import { app, appOn, card, chatBody, post } from './harness.ts'

const errorOf = async (response: Response) => ((await response.json()) as { error: Record<string, unknown> }).error

test('models are listed under every name they answer to', async () => {
  const gateway = await app()
  const { data } = (await (await gateway.request('/v1/models')).json()) as { data: Record<string, unknown>[] }
  assert.deepEqual(
    data.map((model) => model.id),
    ['demo', 'org/demo'],
  )
  assert.equal(data[0]!.max_model_len, 2048)
  assert.equal(data[0]!.object, 'model')
})

test('a model id may hold a slash, written plainly or escaped', async () => {
  const gateway = await app()
  for (const path of ['/v1/models/org/demo', '/v1/models/org%2Fdemo']) {
    const response = await gateway.request(path)
    assert.equal(response.status, 200)
    assert.equal(((await response.json()) as { id: string }).id, 'org/demo')
  }
})

test('an unknown model is a 404 that names what is served', async () => {
  const gateway = await app()
  for (const request of [
    gateway.request('/v1/models/none'),
    gateway.request('/v1/chat/completions', post({ ...chatBody(), model: 'none' })),
  ]) {
    const response = await request
    assert.equal(response.status, 404)
    const error = await errorOf(response)
    assert.equal(error.code, 'model_not_found')
    assert.equal(error.param, 'model')
    assert.match(String(error.message), /Served: demo\./)
  }
})

test('every answer carries a request id of ours, also errors, also when the client sent one', async () => {
  const gateway = await app()
  for (const path of ['/v1/models', '/nothing', '/live']) {
    const response = await gateway.request(path, { headers: { 'x-request-id': 'theirs' } })
    assert.match(response.headers.get('x-request-id') ?? '', /^req_[0-9a-f]{24}$/)
  }
})

test('unknown paths are 404 and known paths with another method 405, in the envelope', async () => {
  const gateway = await app()
  const missing = await gateway.request('/v1/nothing')
  assert.equal(missing.status, 404)
  assert.equal((await errorOf(missing)).type, 'invalid_request_error')
  const wrong = await gateway.request('/v1/chat/completions')
  assert.equal(wrong.status, 405)
  assert.equal(wrong.headers.get('allow'), 'POST')
  assert.equal((await errorOf(wrong)).code, 'method_not_allowed')
})

test('without configured keys any key and no key is accepted', async () => {
  const gateway = await app()
  assert.equal((await gateway.request('/v1/models')).status, 200)
  assert.equal((await gateway.request('/v1/models', { headers: { authorization: 'Bearer whatever' } })).status, 200)
})

test('with keys, every path but the probes answers 401 without one', async () => {
  const gateway = await app({ apiKeys: ['sk-first', 'sk-second'] })
  for (const path of ['/v1/models', '/metrics', '/version', '/ping', '/nothing', '/v1/models/demo']) {
    const response = await gateway.request(path)
    assert.equal(response.status, 401, path)
    assert.equal((await errorOf(response)).code, 'invalid_api_key')
  }
  for (const path of ['/health', '/live', '/ready']) assert.equal((await gateway.request(path)).status, 200, path)
})

test('any of the keys opens, in any case of the scheme; nothing near them does', async () => {
  const gateway = await app({ apiKeys: ['sk-first', 'sk-second'] })
  const status = async (authorization: string) =>
    (await gateway.request('/v1/models', { headers: { authorization } })).status
  assert.equal(await status('Bearer sk-first'), 200)
  assert.equal(await status('bearer sk-second'), 200)
  for (const wrong of [
    'Bearer sk-firs',
    'Bearer sk-firstx',
    'Bearer SK-FIRST',
    'sk-first',
    'Basic sk-first',
    'Bearer ',
  ]) {
    assert.equal(await status(wrong), 401, wrong)
  }
})

test('a refused key is not echoed', async () => {
  const gateway = await app({ apiKeys: ['sk-right'] })
  const response = await gateway.request('/v1/models', { headers: { authorization: 'Bearer sk-secret-typo' } })
  assert.doesNotMatch(await response.text(), /secret/)
})

test('health and ready are 503 when Redis does not answer, live stays 200', async () => {
  const redis = createEmbeddedRedis(systemClock)
  const gateway = await appOn(redis)
  assert.equal((await gateway.request('/health')).status, 200)
  const down: Redis = { ...redis, command: () => Promise.reject(new Error('connect ECONNREFUSED 10.0.0.1:6379')) }
  const broken = await appOn({ ...down, subscribe: async () => () => {}, onReconnect: () => () => {} })
  for (const path of ['/health', '/ready', '/ping']) {
    const response = await broken.request(path)
    assert.equal(response.status, 503, path)
    assert.equal(response.headers.get('retry-after'), '1')
    const error = await errorOf(response)
    assert.equal(error.code, 'queue_unavailable')
    assert.doesNotMatch(String(error.message), /ECONNREFUSED|10\.0\.0\.1/)
  }
  assert.equal((await broken.request('/live')).status, 200)
  assert.equal((await broken.request('/metrics')).status, 200)
  assert.equal((await broken.request('/v1/models')).status, 503)
})

test('health and ready are 503 while an engine in the same process is loading', async () => {
  let loading: string | null = 'The model is still loading.'
  const logged: string[] = []
  const log = { info: () => {}, error: (_: object, message: string) => logged.push(message) }
  const gateway = await appOn(createEmbeddedRedis(systemClock), {}, { log, obstacle: () => loading })
  for (const path of ['/health', '/ready']) {
    const response = await gateway.request(path)
    assert.equal(response.status, 503, path)
    assert.equal((await errorOf(response)).message, loading)
  }
  assert.equal((await gateway.request('/live')).status, 200)
  loading = null
  assert.equal((await gateway.request('/ready')).status, 200)
  assert.deepEqual(logged, [], 'probes of a loading server are no errors')
})

test('metrics show the pool of every card', async () => {
  const text = await (await (await app()).request('/metrics')).text()
  for (const name of ['queued', 'running', 'engines', 'desired', 'last_use_seconds']) {
    assert.match(text, new RegExp(`^pagestream_pool_${name}\\{model="demo"\\} 0$`, 'm'))
  }
})

test('a root path prefixes every route and moves the probes with it', async () => {
  const gateway = await app({ rootPath: '/llm', apiKeys: ['sk-key'] })
  assert.equal((await gateway.request('/llm/health')).status, 200)
  assert.equal((await gateway.request('/llm/v1/models', { headers: { authorization: 'Bearer sk-key' } })).status, 200)
  for (const path of ['/health', '/abc/health']) assert.equal((await gateway.request(path)).status, 401)
})

test('browsers of allowed origins may call, others get no CORS headers', async () => {
  const gateway = await app({ allowedOrigins: ['https://ui.example'], apiKeys: ['sk-key'] })
  const preflight = await gateway.request('/v1/chat/completions', {
    method: 'OPTIONS',
    headers: { origin: 'https://ui.example', 'access-control-request-method': 'POST' },
  })
  assert.equal(preflight.status, 204)
  assert.equal(preflight.headers.get('access-control-allow-origin'), 'https://ui.example')
  const other = await gateway.request('/live', { headers: { origin: 'https://evil.example' } })
  assert.equal(other.headers.get('access-control-allow-origin'), null)
})

test('tokenize counts a chat as the template renders it and detokenize turns ids back', async () => {
  const gateway = await app()
  const { tokens, count, max_model_len } = (await (await gateway.request('/tokenize', post(chatBody()))).json()) as {
    tokens: number[]
    count: number
    max_model_len: number
  }
  assert.equal(count, tokens.length)
  assert.equal(max_model_len, card.maxModelLength)
  const { prompt } = (await (await gateway.request('/detokenize', post({ tokens }))).json()) as { prompt: string }
  assert.match(
    prompt,
    /^<\|im_start\|>system\n[\s\S]*<\|im_start\|>user\nSay hi\.<\|im_end\|>\n<\|im_start\|>assistant\n$/,
  )
})
