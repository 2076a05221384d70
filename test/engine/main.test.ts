// A whole engine process's parts in this one: model, card, lease, daemon, probes, on the embedded Redis.
import assert from 'node:assert/strict'
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type EngineOptions, parseEngineConfig } from '../../engine/config.ts'
import { startEngine } from '../../engine/main.ts'
import { systemClock } from '../../queue/clock.ts'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import { enqueue } from '../../queue/enqueue.ts'
import type { Event } from '../../queue/event.ts'
import { listCards, poolState, readBlob } from '../../queue/models.ts'
import { Streams } from '../../queue/stream.ts'
import { buildKernels } from '../../scripts/build.ts'
import { freePort, get } from '../e2e/processes.ts'
import { makeJob, plenty } from '../queue/jobs.ts'

const stories = fileURLToPath(new URL('../fixtures/stories260K', import.meta.url))
const { prompts } = JSON.parse(await readFile(`${stories}/golden.json`, 'utf8'))
const golden = prompts[1] as { ids: number[]; greedy: number[]; prompt: string; full_text: string }

const silent = { info() {}, warn() {}, error() {}, fatal() {} }

function configOf(options: Partial<EngineOptions> = {}) {
  const base = { model: stories, servedModelName: ['stories', 'tales'], threads: 1, maxNumSeqs: 8, leaseMs: 600 }
  return parseEngineConfig({ ...base, dtype: 'float32', maxNumBatchedTokens: 64, ...options })
}

async function start(t: TestContext, options: Partial<EngineOptions> = {}) {
  await buildKernels()
  const redis = createEmbeddedRedis(systemClock)
  const engine = await startEngine(configOf(options), redis, systemClock, { log: silent })
  t.after(() => engine.close())
  return { redis, engine }
}

test('a model becomes a card, a job its golden text, and the probes tell which state it is in', async (t) => {
  const port = await freePort()
  const { redis, engine } = await start(t, { metricsPort: port, metricsHost: '127.0.0.1' })
  const [card] = await listCards(redis)
  assert.deepEqual(card, engine.card)
  const { name, aliases, maxModelLength, vocabularySize, blockSize, eosTokenIds } = engine.card
  assert.deepEqual([name, aliases, maxModelLength, vocabularySize], ['stories', ['tales'], 512, 512])
  assert.deepEqual([blockSize, eosTokenIds.toSorted()], [16, [1, 2]])
  assert.match(engine.card.numerics, /\/float32\/kv-float32\/tp1$/)
  assert.equal(await readBlob(redis, engine.card.tokenizer), await readFile(`${stories}/tokenizer.json`, 'utf8'))
  assert.equal(await get(port, '/live'), 'ok\n')
  await engine.ready
  assert.equal(await get(port, '/ready'), 'ok\n')

  const streams = await Streams.open(redis, 'gateway-of-stories', systemClock)
  const events: Event[] = []
  const done = Promise.withResolvers<void>()
  streams.attach({ id: 'a', model: 'stories', n: 1 }, (event) => {
    events.push(event)
    if (event.type === 'done' || event.type === 'failed') done.resolve()
  })
  const { revision } = engine.card
  const job = makeJob({ id: 'a', model: 'stories', revision, prompt: Uint32Array.from(golden.ids), maxTokens: 128 })
  await enqueue(redis, { ...job, sampling: { ...job.sampling, stop: [] } }, plenty)
  await done.promise
  const text = events.flatMap((event) => (event.type === 'tokens' ? event.tokens : [])).map((token) => token.text)
  const end = events.find((event) => event.type === 'finish')
  assert.equal(golden.prompt + text.join('') + (end?.text ?? ''), golden.full_text)
  assert.equal(events.at(-1)?.type, 'done')
  assert.match(await engine.metrics(), /^vllm:generation_tokens_total\{[^}]*model_name="stories"[^}]*\} 128$/m)

  await engine.close()
  assert.equal(await get(port, '/live'), null)
  assert.equal((await poolState(redis, 'stories')).running, 0)
  await streams.close()
})

test('what cannot run is refused before its weights are read, and registers no card', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'pagestream-main-'))
  t.after(() => rm(folder, { recursive: true }))
  await cp(stories, folder, { recursive: true })
  const edit = async (file: string, change: (json: Record<string, unknown>) => void) => {
    const json = JSON.parse(await readFile(join(stories, file), 'utf8'))
    change(json)
    await writeFile(join(folder, file), JSON.stringify(json))
  }
  const redis = createEmbeddedRedis(systemClock)
  const refusal = (options: Partial<EngineOptions> = {}) =>
    startEngine(configOf({ model: folder, ...options }), redis, systemClock, { log: silent })
  await buildKernels()

  await assert.rejects(refusal({ maxModelLen: 100_000 }), /--max-model-len 100000 is more than the 512 positions/)
  await assert.rejects(refusal({ chatTemplate: './no-such-file' }), /--chat-template: cannot read .\/no-such-file/)
  await edit('tokenizer.json', (json) => {
    json.decoder = { type: 'WordPiece' }
  })
  await assert.rejects(refusal(), /the decoder "WordPiece" is not supported/)
  await edit('config.json', (json) => {
    json.architectures = ['NovelForCausalLM']
  })
  await assert.rejects(refusal(), /NovelForCausalLM is not supported/)
  assert.deepEqual(await listCards(redis), [])
})

test('closed while its weights are loading, an engine leaves nothing behind', async (t) => {
  const { redis, engine } = await start(t)
  await engine.close()
  await assert.rejects(engine.ready, /closed/)
  assert.equal((await poolState(redis, 'stories')).engines, 0)
})

test('the card has the sampling defaults of the model, of nobody, or those given over them', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'pagestream-main-'))
  t.after(() => rm(folder, { recursive: true }))
  const generation = { temperature: 0.3, top_k: -1, max_new_tokens: 9, eos_token_id: 2 }
  await writeFile(join(folder, 'generation_config.json'), JSON.stringify(generation))
  const { engine } = await start(t, { generationConfig: folder, overrideGenerationConfig: { temperature: 0.7 } })
  assert.deepEqual(engine.card.defaults, { temperature: 0.7, topK: 0, maxTokens: 9 })
})
