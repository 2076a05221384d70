// A model of a few hundred kilobytes for the tests of sources: what its bytes are does not matter, only that all arrive.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type { NetworkOptions } from '../../../engine/weights/network.ts'
import type { Source } from '../../../engine/weights/source.ts'

export type Files = Record<string, Buffer>

/** Small parts and short pauses: every file is several ranges. Tests of silence shorten `idleMs` too. */
export const quick: NetworkOptions = { partBytes: 16 << 10, pauseMs: 1, maxPauseMs: 4, connections: 4 }

const config = {
  architectures: ['LlamaForCausalLM'],
  hidden_act: 'silu',
  hidden_size: 64,
  intermediate_size: 144,
  max_position_embeddings: 512,
  num_attention_heads: 4,
  num_hidden_layers: 2,
  rms_norm_eps: 1e-5,
  vocab_size: 320,
}

export function configFile(more: object = {}): Buffer {
  return Buffer.from(JSON.stringify({ ...config, ...more }))
}

export function modelFiles(seed = 1): Files {
  return {
    'config.json': configFile({ seed }),
    'merges.txt': Buffer.alloc(0),
    'model.safetensors': noise(`weights ${seed}`, 200_003),
    'tokenizer.json': Buffer.from(JSON.stringify({ model: { vocab: { ü: seed } } })),
  }
}

export function shardedFiles(): Files {
  const weight_map = { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' }
  return {
    'config.json': configFile(),
    'model-00001-of-00002.safetensors': noise('first', 50_000),
    'model-00002-of-00002.safetensors': noise('second', 70_001),
    'model.safetensors.index.json': Buffer.from(JSON.stringify({ metadata: {}, weight_map })),
  }
}

/** Reproducible bytes that no shift or repetition leaves unnoticed. */
export function noise(seed: string, bytes: number): Buffer {
  const blocks: Buffer[] = []
  for (let i = 0; i * 32 < bytes; i++) blocks.push(createHash('sha256').update(`${seed} ${i}`).digest())
  return Buffer.concat(blocks).subarray(0, bytes)
}

export async function assertHolds(source: Source, files: Files): Promise<void> {
  const entries = await source.list()
  assert.deepEqual(
    entries.map(({ name, bytes }) => ({ name, bytes })).sort((a, b) => (a.name < b.name ? -1 : 1)),
    Object.entries(files)
      .map(([name, file]) => ({ name, bytes: file.length }))
      .sort((a, b) => (a.name < b.name ? -1 : 1)),
  )
  for (const [name, file] of Object.entries(files)) {
    assert.ok(file.equals(await source.read(name, 0, file.length)), `${name} differs`)
    const [third, half] = [Math.floor(file.length / 3), Math.floor(file.length / 2)]
    assert.ok(file.subarray(third, half).equals(await source.read(name, third, half)), `the middle of ${name} differs`)
  }
  assert.equal(await source.text('config.json'), files['config.json']!.toString())
}

export async function temporaryFolder(t: TestContext, files: Files = {}): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'pagestream-weights-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  for (const [name, file] of Object.entries(files)) await writeFile(join(folder, name), file)
  return folder
}

/** Names of everything under a folder that looks like an unfinished download. */
export async function unfinished(folder: string): Promise<string[]> {
  return (await readdir(folder, { recursive: true })).filter((name) => name.includes('incomplete'))
}

export async function blobs(folder: string, repository: string): Promise<Record<string, Buffer>> {
  const path = join(folder, repository, 'blobs')
  const found: Record<string, Buffer> = {}
  for (const name of await readdir(path).catch(() => [])) found[name] = await readFile(join(path, name))
  return found
}
