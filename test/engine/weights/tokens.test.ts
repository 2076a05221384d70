// The whole way: the demo model through S3, with faults on the road, generates what its folder generates.
import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { LLM, SamplingParams } from '../../../scripts/llm.ts'
import { startS3 } from '../../doubles/s3.ts'
import { temporaryFolder } from './fixture.ts'

const folder = join(import.meta.dirname, '../../../scripts/demo/model')
const prompts = ['The gateway', 'What is PagedAttention?', 'Once upon a time']

async function generate(model: string, options: object): Promise<number[][]> {
  const llm = new LLM({ model, maxModelLen: 256, kvCacheMemoryBytes: 16 << 20, ...options })
  const outputs = await llm.generate(prompts, new SamplingParams({ temperature: 0, max_tokens: 24 }), {
    use_tqdm: false,
  })
  await llm.close()
  return outputs.map((output) => output.outputs[0].token_ids)
}

test('a model from S3, through a storm and from the cache, generates token for token what its folder does', async (t) => {
  const store = await startS3()
  t.after(() => store.close())
  for (const name of await readdir(folder)) store.put(`demo/${name}`, await readFile(join(folder, name)))
  process.env.AWS_ACCESS_KEY_ID = store.keys.accessKeyId
  process.env.AWS_SECRET_ACCESS_KEY = store.keys.secretAccessKey
  const remote = { downloadDir: await temporaryFolder(t), s3: { endpoint: store.endpoint } }

  const expected = await generate(folder, {})
  assert.ok(expected.every((ids) => ids.length > 0))
  store.fault = ({ count }) => {
    if (count % 3 === 0) return { kind: 'status', status: 503, code: 'SlowDown' }
    return count % 5 === 1 ? { kind: 'reset', after: 70_000 } : null
  }
  assert.deepEqual(await generate('s3://models/demo', remote), expected)
  assert.ok(store.log.some((line) => line.endsWith('-> 503')))
  store.log.length = 0
  assert.deepEqual(await generate('s3://models/demo', remote), expected)
  assert.ok(!store.log.some((line) => line.includes('model.safetensors')))
})
