import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { readModelFiles } from '../../../engine/weights/files.ts'
import { memorySource, safetensors } from './memory.ts'

const config = readFileSync(new URL('../../fixtures/golden/llama_gqa/config.json', import.meta.url), 'utf8')
const weights = (byte: number) =>
  safetensors({ a: { dtype: 'F32', shape: [2, 3], bytes: new Uint8Array(24).fill(byte) } })
const base = { 'config.json': config, 'model.safetensors': weights(1) }

function files(more: Record<string, Uint8Array | string>) {
  return readModelFiles(memorySource({ ...base, ...more }))
}

test('a model of weights and config alone is read, with empty defaults', async () => {
  const read = await files({})
  assert.equal(read.config.hiddenSize, 64)
  assert.equal(read.tokenizerJson, null)
  assert.equal(read.chatTemplate, null)
  assert.deepEqual(read.generationConfig, {})
  assert.match(read.revision, /^[0-9a-f]{64}$/)
})

test('special tokens come as text, those of tokenizer_config.json over those of special_tokens_map.json', async () => {
  const read = await files({
    'special_tokens_map.json': JSON.stringify({
      bos_token: '<old>',
      unk_token: { content: '<unk>', lstrip: false },
      additional_special_tokens: ['x'],
    }),
    'tokenizer_config.json': JSON.stringify({
      bos_token: { content: '<s>' },
      eos_token: '</s>',
      pad_token: null,
      add_bos_token: true,
    }),
  })
  assert.deepEqual(read.specialTokens, { bos_token: '<s>', unk_token: '<unk>', eos_token: '</s>' })
})

test('the chat template is found wherever models keep it', async () => {
  const named = [
    { name: 'rag', template: 'R' },
    { name: 'default', template: 'D' },
  ]
  const inConfig = (chat_template: unknown) => ({ 'tokenizer_config.json': JSON.stringify({ chat_template }) })
  assert.equal((await files(inConfig('A'))).chatTemplate, 'A')
  assert.equal((await files(inConfig(named))).chatTemplate, 'D')
  assert.equal((await files({ ...inConfig('A'), 'chat_template.jinja': 'B' })).chatTemplate, 'B')
  assert.equal((await files({ 'chat_template.json': '{"chat_template":"C"}' })).chatTemplate, 'C')
  await assert.rejects(files(inConfig(7)), /tokenizer_config\.json: chat_template/)
})

test('what generation_config.json says wrongly is refused with the field and the value', async () => {
  await assert.rejects(
    files({ 'generation_config.json': '{"top_p":1.5}' }),
    /^ModelError: generation_config\.json: top_p: .*\(1\.5\)/,
  )
  await assert.rejects(
    files({ 'generation_config.json': '{"top_p":' }),
    /^ModelError: generation_config\.json is not valid JSON/,
  )
})

test('an unsupported architecture is refused before a weight file is touched', async () => {
  const source = memorySource({ ...base, 'config.json': '{"architectures":["GPT2LMHeadModel"]}' })
  await assert.rejects(
    readModelFiles(source),
    /architectures: GPT2LMHeadModel is not supported; supported: LlamaForCausalLM/,
  )
  assert.equal(source.reads, 0)
  const pickles = { 'config.json': '{"architectures":["GPT2LMHeadModel"]}', 'pytorch_model.bin': 'x' }
  await assert.rejects(readModelFiles(memorySource(pickles)), /GPT2LMHeadModel is not supported/)
})

test('a model in another weight format is refused with what to do', async () => {
  const pickles = memorySource({ 'config.json': config, 'pytorch_model.bin': 'x' })
  await assert.rejects(
    readModelFiles(pickles),
    /^ModelError: .* has no \*\.safetensors; other weight formats are not read, convert the model$/,
  )
})

test('the revision changes with any file that matters, and with nothing else', async () => {
  const revision = async (more: Record<string, Uint8Array | string>) => (await files(more)).revision
  const original = await revision({})
  assert.equal(await revision({ 'README.md': 'hello' }), original)
  assert.notEqual(await revision({ 'tokenizer.json': '{}' }), original)
  assert.notEqual(await revision({ 'model.safetensors': weights(2) }), original)
  assert.notEqual(
    await revision({ 'config.json': config.replace('"use_cache": true', '"use_cache": false') }),
    original,
  )
})
