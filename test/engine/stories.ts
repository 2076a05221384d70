// The smallest real model of the tests, stories260K, and runs of it to the end.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { Engine, type EngineOptions, type StepOutput } from '../../engine/engine.ts'
import { createModel, type Model } from '../../engine/models/index.ts'
import { Device } from '../../engine/native/device.ts'
import type { SequenceRequest } from '../../engine/scheduler/sequence.ts'
import { readModelFiles } from '../../engine/weights/files.ts'
import { openFolder } from '../../engine/weights/folder.ts'
import { WeightReader } from '../../engine/weights/load.ts'

const folder = new URL('../fixtures/stories260K', import.meta.url).pathname

export const golden: { ids: number[]; greedy: number[] }[] = JSON.parse(
  readFileSync(`${folder}/golden.json`, 'utf8'),
).prompts

export const options: EngineOptions = {
  blockSize: 16,
  numBlocks: 256,
  maxModelLen: 256,
  maxNumSeqs: 64,
  maxNumBatchedTokens: 512,
  longPrefillTokenThreshold: 0,
  enableChunkedPrefill: true,
  enablePrefixCaching: true,
  eosTokenIds: [2],
}

export type Stories = { device: Device; model: Model; engine(changes?: Partial<EngineOptions>): Engine; close(): void }

export async function openStories({ debug = false } = {}): Promise<Stories> {
  const device = Device.open({ backend: 'cpu', threads: 1, debug })
  const source = await openFolder(folder)
  const files = await readModelFiles(source)
  const reader = new WeightReader(source, files.tensors)
  const limits = { maxTokens: options.maxNumBatchedTokens, maxLogits: options.maxNumSeqs }
  const model = await createModel(device, files.config, reader, { dtype: 'float32', ...limits })
  await source.close()
  const engines: Engine[] = []
  const engine = (changes: Partial<EngineOptions> = {}) => {
    const made = new Engine(model, device, { ...options, ...changes })
    engines.push(made)
    return made
  }
  const close = () => {
    for (const each of engines) each.free()
    model.free()
    device.close()
  }
  return { device, model, engine, close }
}

/** Runs to the end; ids by choice of each request, resumed ones not included. Checks order, indices and blocks. */
export function finish(engine: Engine, requests: SequenceRequest[]): Map<string, number[][]> {
  const ids = new Map(
    requests.map(({ id, sampling }) => [id, Array.from({ length: sampling.n }, () => [] as number[])]),
  )
  const start = (output: { id: string; choice: number }) =>
    requests.find(({ id }) => id === output.id)!.resume[output.choice]?.length ?? 0
  for (const request of requests) engine.add(request)
  for (const output of drain(engine)) {
    assert.equal(output.type === 'failed' ? output.message : '', '')
    if (output.type !== 'token') continue
    const choice = ids.get(output.id)![output.choice]!
    assert.equal(output.index, start(output) + choice.length)
    choice.push(output.token)
  }
  engine.checkIntegrity()
  assert.equal(engine.stats().freeBlocks, engine.stats().totalBlocks)
  return ids
}

export function drain(engine: Engine): StepOutput[] {
  const outputs: StepOutput[] = []
  while (engine.hasWork) outputs.push(...engine.step())
  return outputs
}
