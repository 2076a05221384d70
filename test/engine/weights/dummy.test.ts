// Random weights of a shape: a source like any other, the same bytes however it is read.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { surveyTensors } from '../../../engine/models/index.ts'
import { Vocab } from '../../../engine/output/vocab.ts'
import { openDummy } from '../../../engine/weights/dummy.ts'
import { readModelFiles } from '../../../engine/weights/files.ts'
import { openFolder } from '../../../engine/weights/folder.ts'
import type { Source } from '../../../engine/weights/source.ts'
import { PromptEncoder } from '../../../gateway/prompt/tokenizer.ts'

const fixture = (name: string) => fileURLToPath(new URL(`../../fixtures/${name}`, import.meta.url))
const shape = fileURLToPath(new URL('../../../scripts/bench/shapes/smollm2-135m', import.meta.url))
const empty = mkdtempSync(join(tmpdir(), 'pagestream-dummy-'))
const opened: Source[] = []
after(async () => {
  for (const source of opened) await source.close()
  rmSync(empty, { recursive: true })
})

async function openShape(path: string): Promise<Source> {
  const source = await openDummy(path, surveyTensors)
  opened.push(source)
  return source
}

test('the survey of a configuration names the tensors of its checkpoint', async () => {
  for (const name of ['golden/llama_gqa', 'golden/llama_bias_headdim', 'golden/llama3_rope_tied', 'stories260K']) {
    const source = await openFolder(fixture(name))
    const { config, tensors } = await readModelFiles(source)
    await source.close()
    const surveyed = surveyTensors(config).map((tensor) => [tensor.name, [...tensor.shape]])
    const held = [...tensors.values()].map((tensor) => [tensor.name, [...tensor.shape]])
    const optional = (tensor: unknown[]) => config.tiedEmbeddings && tensor[0] === 'lm_head.weight'
    assert.deepEqual(surveyed.sort(), held.filter((tensor) => !optional(tensor)).sort())
  }
})

test('a shape has its parameters, one revision, and finite weights near the scale of their columns', async () => {
  const source = await openShape(shape)
  const files = await readModelFiles(source)
  const elements = [...files.tensors.values()].reduce((sum, { begin, end }) => sum + (end - begin) / 2, 0)
  assert.equal(elements, 134_515_008)
  assert.equal((await readModelFiles(await openShape(shape))).revision, files.revision)
  const { file, begin } = files.tensors.get('model.layers.3.mlp.up_proj.weight')!
  const bytes = await source.read(file, begin, begin + 2 * 576 * 20)
  const halves = new Uint16Array(bytes.buffer.slice(0))
  const values = new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer)
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const square = values.reduce((sum, value) => sum + value * value, 0) / values.length
  assert.ok(Math.abs(mean) < 0.002 && Math.abs(Math.sqrt(square * 576) - 1) < 0.4, `${mean} ${square}`)
  assert.ok(new Set(halves).size > 200)
  const norm = files.tensors.get('model.norm.weight')!
  assert.deepEqual([...(await source.read(norm.file, norm.begin, norm.begin + 4))], [0x80, 0x3f, 0x80, 0x3f])
})

test('any piece of the file is the same piece of the whole', async () => {
  const source = await openShape(fixture('golden/llama_gqa'))
  const { name, bytes } = (await source.list()).find((entry) => entry.name.endsWith('.safetensors'))!
  const whole = await source.read(name, 0, bytes)
  for (const size of [1, 7, 1000, 65_537]) {
    for (let begin = 0; begin < bytes; begin += Math.max(size, Math.ceil(bytes / 50))) {
      const end = Math.min(bytes, begin + size)
      assert.deepEqual(await source.read(name, begin, end), whole.slice(begin, end))
    }
  }
})

test('without a tokenizer a token is a byte, and every other id has a text of its own', async () => {
  const json = await (await openShape(shape)).text('tokenizer.json')
  const encoder = new PromptEncoder(json, '0', async () => json)
  const text = 'Grüße, 世界!\n'
  const ids = await encoder.plain.encode(text, true)
  assert.deepEqual([...ids], [...Buffer.from(text)])
  const vocab = new Vocab(json)
  assert.equal(vocab.size, 49_152)
  assert.equal(new Set([256, 257, 49_151].map((id) => vocab.text(id))).size, 3)
  assert.match(vocab.text(49_151)!, /^ w\w+$/)
})

test('a model with a tokenizer keeps it; one without a configuration is refused', async () => {
  const kept = await openShape(fixture('stories260K'))
  const real = await openFolder(fixture('stories260K'))
  assert.equal(await kept.text('tokenizer.json'), await real.text('tokenizer.json'))
  await real.close()
  await assert.rejects(openDummy(empty, surveyTensors), /has no config.json; --load-format dummy needs one/)
  writeFileSync(join(empty, 'config.json'), '{"architectures":["Nope"]}')
  await assert.rejects(openDummy(empty, surveyTensors), /architectures: Nope is not supported/)
})
