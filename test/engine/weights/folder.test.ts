import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { openFolder } from '../../../engine/weights/folder.ts'
import { openSource } from '../../../engine/weights/open.ts'
import { systemClock } from '../../../queue/clock.ts'
import { assertHolds, modelFiles, temporaryFolder } from './fixture.ts'

const options = { clock: systemClock, random: () => 0.5 }

test('a folder gives its files byte for byte', async (t) => {
  const files = modelFiles()
  const source = await openSource(await temporaryFolder(t, files), options)
  await assertHolds(source, files)
  await source.close()
})

test('only safetensors, json, txt and jinja files are part of a model', async (t) => {
  const files = modelFiles()
  const others = {
    'pytorch_model.bin': Buffer.from('pickle'),
    'modeling_x.py': Buffer.from('code'),
    '.hidden.json': Buffer.from('{}'),
  }
  const source = await openFolder(await temporaryFolder(t, { ...files, ...others }))
  await assertHolds(source, files)
  await assert.rejects(source.read('pytorch_model.bin', 0, 1), /pytorch_model\.bin is not a file that a model may have/)
  await assert.rejects(source.read('../secret.json', 0, 1), /is not a file that a model may have/)
  await source.close()
})

test('what is not a model is refused in one line that says why', async (t) => {
  const { 'config.json': config, ...rest } = modelFiles()
  const noConfig = await temporaryFolder(t, rest)
  const file = join(await temporaryFolder(t, { 'config.json': config! }), 'config.json')
  const cases: [string, RegExp][] = [
    ['/no/such/folder', /^\/no\/such\/folder does not exist$/],
    ['./neither', /^\.\/neither does not exist$/],
    [noConfig, /has no config\.json, so it is not a model in Hugging Face layout$/],
    [file, /config\.json is a file; give the folder that holds config\.json$/],
    [
      'gs://bucket/model',
      /^gs:\/\/bucket\/model is not a folder here, nor s3:\/\/bucket\/prefix, nor org\/name of the hub$/,
    ],
    ['llama', /^llama is not a folder here/],
    ['s3://', /^s3:\/\/ is not of the form s3:\/\/bucket\/prefix$/],
  ]
  for (const [model, message] of cases)
    await assert.rejects(openSource(model, options), { name: 'SourceError', message })
})

test('a file shorter than the range that is read is an error, not a short answer', async (t) => {
  const folder = await temporaryFolder(t, modelFiles())
  const source = await openFolder(folder)
  await assert.rejects(source.read('model.safetensors', 200_000, 200_004), /ends at byte 200003, before byte 200004$/)
  await writeFile(join(folder, 'tokenizer.json'), Buffer.from([0xff, 0xfe, 0x00]))
  await assert.rejects(source.text('tokenizer.json'), /tokenizer\.json ends at byte 3, before byte \d+$/)
  await source.close()
  const other = await openFolder(folder)
  await assert.rejects(other.text('tokenizer.json'), /tokenizer\.json is not UTF-8 text$/)
  await other.close()
})
