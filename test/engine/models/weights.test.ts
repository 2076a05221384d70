import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, test } from 'node:test'
import { createModel } from '../../../engine/models/index.ts'
import { Device } from '../../../engine/native/device.ts'
import { readModelFiles } from '../../../engine/weights/files.ts'
import { WeightReader } from '../../../engine/weights/load.ts'
import { readTensors } from '../../../engine/weights/safetensors.ts'
import { type InventedTensor, memorySource, safetensors } from '../weights/memory.ts'

const golden = new URL('../../fixtures/golden/llama3_rope_tied/', import.meta.url)
const file = readFileSync(new URL('model.safetensors', golden))
const config = JSON.parse(readFileSync(new URL('config.json', golden), 'utf8'))
const device = Device.open({ backend: 'cpu', threads: 1, isa: 'plain' })
after(() => device.close())

const original: Record<string, InventedTensor> = {}
for (const { name, dtype, shape, begin, end } of (
  await readTensors(memorySource({ 'model.safetensors': file }))
).values()) {
  original[name] = { dtype, shape: [...shape], bytes: file.subarray(begin, end) }
}

async function load(tensors: Record<string, InventedTensor>, changes: object = {}, mayRead = false) {
  const source = memorySource({
    'config.json': JSON.stringify({ ...config, ...changes }),
    'model.safetensors': safetensors(tensors),
  })
  const files = await readModelFiles(source)
  source.reads = 0
  const reader = new WeightReader(source, files.tensors)
  try {
    const model = await createModel(device, files.config, reader, { dtype: 'float32', maxTokens: 8, maxLogits: 8 })
    model.free()
  } catch (error) {
    if (!mayRead) assert.equal(source.reads, 0, `after a weight was read: ${error}`)
    throw error
  }
}

const without = (name: string) => Object.fromEntries(Object.entries(original).filter(([each]) => each !== name))
const query = 'model.layers.1.self_attn.q_proj.weight'

test('the checkpoint as it is loads', () => load(original))

test('a missing tensor is named', async () => {
  await assert.rejects(
    load(without(query)),
    /^ModelError: memory: tensor model\.layers\.1\.self_attn\.q_proj\.weight is missing/,
  )
  await assert.rejects(load(original, { num_hidden_layers: 3 }), /model\.layers\.2\.input_layernorm\.weight is missing/)
  await assert.rejects(load(original, { attention_bias: true }), /model\.layers\.0\.self_attn\.q_proj\.bias is missing/)
  await assert.rejects(load(original, { tie_word_embeddings: false }), /lm_head\.weight is missing/)
})

test('a tensor of another shape is named with both shapes', async () => {
  await assert.rejects(
    load(original, { num_key_value_heads: 4 }),
    /model\.safetensors: tensor .*k_proj\.weight has shape \[32,64\], config\.json asks for \[64,64\]/,
  )
  const flat = { ...original, [query]: { ...original[query]!, shape: [64 * 64] } }
  await assert.rejects(load(flat), /q_proj\.weight has shape \[4096\]/)
})

test('a tensor that the architecture does not have is named', async () => {
  const extra = { dtype: 'BF16', shape: [4], bytes: new Uint8Array(8) }
  await assert.rejects(load(original, { num_hidden_layers: 1 }), /does not have: model\.layers\.1\..* and \d+ more/)
  await assert.rejects(
    load({ ...original, 'model.layers.0.self_attn.q_norm.weight': extra }),
    /does not have: .*q_norm\.weight/,
  )
})

test('what old checkpoints carry besides is passed over', async () => {
  const frequencies = { dtype: 'F64', shape: [1], bytes: new Uint8Array(8) }
  const head = original['model.embed_tokens.weight']!
  await load({ ...original, 'model.layers.0.self_attn.rotary_emb.inv_freq': frequencies, 'lm_head.weight': head })
})

test('a dtype that cannot be computed with is refused by name', async () => {
  const bytes = new Uint8Array(64 * 64)
  const quantized = { ...original, [query]: { dtype: 'F8_E4M3', shape: [64, 64], bytes } }
  await assert.rejects(
    load(quantized),
    /q_proj\.weight has dtype F8_E4M3, which is not supported; supported: F32, F16, BF16/,
  )
})

test('weights that are not numbers are refused by name', async () => {
  for (const name of [query, 'model.norm.weight']) {
    const bytes = new Uint8Array(original[name]!.bytes.length).fill(0xff)
    const broken = { ...original, [name]: { ...original[name]!, bytes } }
    await assert.rejects(
      load(broken, {}, true),
      new RegExp(`model\\.safetensors: tensor ${name}, row 0: not a finite number`),
    )
  }
})
