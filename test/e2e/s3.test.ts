// A model served from s3:// is the model of the folder, token for token; a store that misbehaves is either survived or
// named in one clear line, and never silently wrong.
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type S3Double, startS3 } from '../doubles/s3.ts'
import { demo } from './processes.ts'
import { serve, spawnServe } from './serve.ts'

async function storeOfDemo(t: TestContext): Promise<{ store: S3Double; args: string[]; env: Record<string, string> }> {
  const store = await startS3()
  t.after(() => store.close())
  for (const name of readdirSync(demo)) store.put(`demo/${name}`, readFileSync(join(demo, name)))
  const cache = mkdtempSync(join(tmpdir(), 'pagestream-s3-test-'))
  t.after(() => rmSync(cache, { recursive: true, force: true }))
  return {
    store,
    args: ['s3://models/demo', '--served-model-name', 'demo', '--download-dir', cache, '--s3-endpoint', store.endpoint],
    env: {
      AWS_ACCESS_KEY_ID: store.keys.accessKeyId,
      AWS_SECRET_ACCESS_KEY: store.keys.secretAccessKey,
      AWS_REGION: 'us-east-1',
    },
  }
}

/** Greedy token by token with its log-probability: equal only if the weights are equal. */
async function answersOf(port: number): Promise<unknown> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'demo',
      prompt: ['Pagestream is', 'Once upon a time', 'The capital of France is'],
      temperature: 0,
      max_tokens: 60,
      ignore_eos: true,
      logprobs: 2,
    }),
  })
  const { choices } = (await response.json()) as { choices: { text: string; logprobs: { tokens: string[] } }[] }
  assert.equal(choices?.length, 3)
  assert.ok(choices.every(({ logprobs }) => logprobs.tokens.length === 60))
  return choices
}

test('s3:// answers token for token what the folder answers, also through a storm of 503', {
  timeout: 300_000,
}, async (t) => {
  const folder = await serve(t, [demo, '--served-model-name', 'demo'])
  const expected = await answersOf(folder.port)
  folder.child.kill('SIGKILL')

  const { store, args, env } = await storeOfDemo(t)
  let refused = 0
  store.fault = ({ count }) => {
    if (count >= 4 && count % 4 !== 0) return null
    refused++
    return { kind: 'status', status: 503, code: 'SlowDown' }
  }
  const fromS3 = await serve(t, args, env)
  assert.ok(refused >= 4, `the storm hit ${refused} requests`)
  assert.deepEqual(await answersOf(fromS3.port), expected)
})

test('a wrong secret ends serve with one line that names it', { timeout: 120_000 }, async (t) => {
  const { args, env } = await storeOfDemo(t)
  const server = await spawnServe(t, args, { ...env, AWS_SECRET_ACCESS_KEY: 'another-secret' })
  assert.equal(await server.exited, 1)
  assert.match(server.output(), /^pagestream: s3:\/\/models\/demo.*AWS_SECRET_ACCESS_KEY/m)
  assert.doesNotMatch(server.output(), /another-secret|^ +at /m, 'neither the secret nor a stack')
})

test('an object that is truncated in the store ends serve with one line that names it', {
  timeout: 120_000,
}, async (t) => {
  const { store, args, env } = await storeOfDemo(t)
  store.put('demo/model.safetensors', readFileSync(join(demo, 'model.safetensors')).subarray(0, 1_000_000))
  const server = await spawnServe(t, args, env)
  assert.equal(await server.exited, 1)
  assert.match(server.output(), /^pagestream: .*model\.safetensors/m)
  assert.doesNotMatch(server.output(), /^ +at /m)
})

test('answers that end early are asked for again and end in the right weights', { timeout: 300_000 }, async (t) => {
  const { store, args, env } = await storeOfDemo(t)
  let left = 3
  store.fault = ({ name }) =>
    name.endsWith('model.safetensors') && left-- > 0 ? { kind: 'reset', after: 100_000 } : null
  const server = await serve(t, args, env)
  assert.ok(left < 0)
  await answersOf(server.port)
})
