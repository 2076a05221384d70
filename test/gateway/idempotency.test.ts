// The same Idempotency-Key twice: one generation and one answer, through whichever gateway.
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, beforeEach, test } from 'node:test'
import { GatewayConfig } from '../../gateway/config.ts'
import { startGateway } from '../../gateway/main.ts'
import { systemClock } from '../../queue/clock.ts'
import { jobKey } from '../../queue/keys.ts'
import { chatBody, events, hello, post, serve, until, words } from './harness.ts'

const config = { orphanGraceMs: 3000, idempotentRetentionMs: 300 }
const served = await serve(config)
const other = await startGateway(GatewayConfig.parse({ port: 0, ...config }), served.redis, systemClock)
const urls = [served.url, `http://127.0.0.1:${other.port}`] as const
after(async () => {
  await other.close()
  await served.close()
})
beforeEach(() => {
  served.engine.script = hello
  served.engine.stepMs = 0
})

const ask = (key: string, body: object = {}, url: string = urls[0], signal?: AbortSignal) =>
  fetch(`${url}/v1/chat/completions`, {
    ...post(chatBody(body), { 'idempotency-key': key }),
    ...(signal && { signal }),
  })
const codeOf = async (response: Response) => ((await response.json()) as { error: { code: string } }).error.code
/** Choices advance side by side; what is promised is the order within each. */
const byChoice = (text: string) => Map.groupBy(dataOf(text), (line) => /"index":(\d+)/.exec(line)?.[1])
/** Without the lines that say where an event stands. */
const dataOf = (text: string) => text.split('\n').filter((line) => line.startsWith('data: '))

test('a repeated request is given the first answer, whole or streamed, and nothing is generated again', async () => {
  for (const body of [{}, { stream: true }]) {
    const key = randomUUID()
    const before = served.engine.jobs.length
    const first = await (await ask(key, body)).text()
    for (const url of urls) assert.equal(await (await ask(key, body, url)).text(), first)
    assert.equal(served.engine.jobs.length, before + 1)
  }
})

test('a second request attaches to a running generation, through another gateway and through the same', async () => {
  const key = randomUUID()
  served.engine.script = () => ({ choices: [words('a b c d e f g h i j k l m n o p')] })
  served.engine.stepMs = 10
  const before = served.engine.jobs.length
  const first = ask(key, { stream: true })
  await systemClock.sleep(60)
  const texts = await Promise.all(
    [first, ...urls.map((url) => ask(key, { stream: true }, url))].map(async (answer) => (await answer).text()),
  )
  assert.equal(new Set(texts).size, 1)
  assert.equal(events(texts[0]!).at(-1), '[DONE]')
  assert.equal(served.engine.jobs.length, before + 1)
})

test('a client that lost its connection finds the generation going on, and it ends with its grace', async () => {
  served.engine.script = () => ({ choices: [words('word '.repeat(200))] })
  served.engine.stepMs = 5
  const key = randomUUID()
  const hangUp = async () => {
    const abort = new AbortController()
    const response = await ask(key, { stream: true }, urls[0], abort.signal)
    await response.body!.getReader().read()
    abort.abort()
  }
  await hangUp()
  await systemClock.sleep(100)
  const { id } = served.engine.jobs.at(-1)!
  const again = await ask(key, { stream: true }, urls[1])
  assert.equal(events(await again.text()).at(-1), '[DONE]')
  assert.equal(served.engine.jobs.at(-1)!.id, id)
  assert.ok(!served.engine.cancelled.includes(id))

  served.engine.script = () => ({ choices: [words('word '.repeat(5000))] })
  const lost = randomUUID()
  const abort = new AbortController()
  const response = await ask(lost, { stream: true }, urls[0], abort.signal)
  await response.body!.getReader().read()
  abort.abort()
  const last = served.engine.jobs.at(-1)!.id
  await systemClock.sleep(2500)
  assert.ok(!served.engine.cancelled.includes(last))
  await until(() => served.engine.cancelled.includes(last))
})

test('a key used with another body or route is refused; one whose keys are in another order is the same', async () => {
  const key = randomUUID()
  const first = await (await ask(key, { seed: 1, user: 'u' })).text()
  assert.equal(await (await ask(key, { user: 'u', seed: 1 })).text(), first)
  const refused = await ask(key, { seed: 2, user: 'u' })
  assert.deepEqual([refused.status, refused.headers.get('x-should-retry')], [422, 'false'])
  const { error } = (await refused.json()) as { error: { type: string; code: string } }
  assert.deepEqual([error.type, error.code], ['idempotency_error', 'idempotency_mismatch'])
  const model = await ask(key, { model: 'org/demo' })
  assert.equal(await codeOf(model), 'idempotency_mismatch')
})

test('two requests at the same moment are one generation', async () => {
  const key = randomUUID()
  const before = served.engine.jobs.length
  const answers = await Promise.all(urls.flatMap((url) => [ask(key, {}, url), ask(key, {}, url)]))
  const texts = await Promise.all(answers.map((answer) => answer.text()))
  assert.equal(new Set(texts).size, 1)
  assert.equal(served.engine.jobs.length, before + 1)
})

test('several prompts and choices are replayed with their ids', async () => {
  const body = JSON.stringify({ model: 'demo', prompt: ['one', 'two'], n: 2, max_tokens: 9 })
  const key = randomUUID()
  const before = served.engine.jobs.length
  const texts = []
  for (const url of urls) {
    texts.push(await (await fetch(`${url}/v1/completions`, post(body, { 'idempotency-key': key }))).text())
  }
  assert.equal(texts[0], texts[1])
  assert.equal(JSON.parse(texts[0]!).choices.length, 4)
  assert.equal(served.engine.jobs.length, before + 2)
})

test('what failed validation is not stored, and what failed later is tried again', async () => {
  const key = randomUUID()
  assert.equal((await ask(key, { max_tokens: -1 })).status, 400)
  served.engine.script = () => ({
    choices: [words('a')],
    failed: { code: 'request_failed', message: 'No.' },
    atOnce: true,
  })
  assert.equal((await ask(key)).status, 500)
  served.engine.script = hello
  const first = await ask(key)
  assert.equal(first.status, 200)
  assert.equal(await (await ask(key)).text(), await first.text())
})

test('a job that Redis lost before it began is the same one when the request is repeated', async () => {
  served.engine.script = () => undefined
  const key = randomUUID()
  const abort = new AbortController()
  const lost = ask(key, { seed: 7 }, urls[0], abort.signal).catch(() => {})
  await until(() => served.engine.jobs.at(-1)?.sampling.seed === '7')
  const { id } = served.engine.jobs.at(-1)!
  abort.abort()
  await lost
  await served.redis.command('DEL', jobKey('demo', id))
  served.engine.script = hello
  const answer = (await (await ask(key, { seed: 7 }, urls[1])).json()) as { id: string }
  assert.equal(answer.id, id)
})

test('an answer that is no longer kept is refused rather than generated twice', async () => {
  const key = randomUUID()
  await (await ask(key)).text()
  await systemClock.sleep(350)
  const late = await ask(key)
  assert.deepEqual([late.status, await codeOf(late)], [410, 'idempotency_expired'])
})

test('a key has at most 255 characters', async () => {
  assert.equal((await ask('k'.repeat(255))).status, 200)
  const refused = await ask('k'.repeat(256))
  assert.equal(refused.status, 400)
})

test('a stream is followed through any gateway from any of its positions, live or ended', async () => {
  served.engine.script = (job) => ({
    choices: Array.from({ length: job.sampling.n }, (_, i) => words(`a b c${i} d e f g h`)),
    finish: { text: '!', reason: 'stop', stopReason: null },
  })
  for (const body of [{}, { n: 2 }, { logprobs: true, stream_options: { include_usage: true } }]) {
    const text = await (await ask(randomUUID(), { stream: true, ...body })).text()
    const parts = text.split('\n\n').filter((part) => part !== '')
    const [first] = events(text)
    const follow = async (after: string, url: string) =>
      (await fetch(`${url}/v1/streams/${first.id}${after === '' ? '' : `?starting_after=${after}`}`)).text()
    assert.deepEqual(byChoice(await follow('', urls[1])), byChoice(text))
    for (const [i, part] of parts.entries()) {
      const position = /^id: ([\d.]+)$/m.exec(part)?.[1]
      if (position === undefined) continue
      const rest = `${parts.slice(i + 1).join('\n\n')}\n\n`
      assert.deepEqual(byChoice(await follow(position, urls[i % 2]!)), byChoice(rest), `after ${position}`)
    }
  }
})

test('a stream that is followed while it runs ends as the first does', async () => {
  served.engine.script = () => ({ choices: [words('a b c d e f g h i j')] })
  served.engine.stepMs = 15
  const response = await ask(randomUUID(), { stream: true })
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  const head = (await reader.read()).value!
  const id = events(head)[0].id
  const followed = await (await fetch(`${urls[1]}/v1/streams/${id}?starting_after=3`)).text()
  let text = head
  for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value
  assert.deepEqual(dataOf(followed), dataOf(text).slice(4))
})

test('unknown streams are 404 and impossible positions 400', async () => {
  const get = (path: string) => fetch(`${urls[0]}/v1/streams/${path}`)
  for (const id of ['chatcmpl-none', 'a%2Fb', '{q}']) assert.equal(await codeOf(await get(id)), 'stream_not_found')
  const { id } = (await (await ask(randomUUID(), { n: 2 })).json()) as { id: string }
  for (const after of ['3', '1.2.3', '-1', 'x', '1.']) {
    assert.equal((await get(`${id}?starting_after=${after}`)).status, 400, after)
  }
})

test('a stream without a key carries no positions and ends at once with its client', async () => {
  served.engine.script = () => ({ choices: [words('word '.repeat(2000))] })
  served.engine.stepMs = 5
  const abort = new AbortController()
  const response = await fetch(`${urls[0]}/v1/chat/completions`, {
    ...post(chatBody({ stream: true })),
    signal: abort.signal,
  })
  const head = new TextDecoder().decode((await response.body!.getReader().read()).value)
  assert.doesNotMatch(head, /^id:/m)
  abort.abort()
  const hungUp = systemClock.monotonic()
  const { id } = served.engine.jobs.at(-1)!
  await until(() => served.engine.cancelled.includes(id))
  assert.ok(systemClock.monotonic() - hungUp < 250)
})
