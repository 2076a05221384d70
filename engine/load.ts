// From a configuration to a running engine, in two steps: openModel reads the small files, refuses what cannot run and
// plans the memory; loadEngine reads the weights. Called by the engine thread and by the offline LLM.
import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../queue/clock.ts'
import { type Capacity, planCapacity } from './capacity.ts'
import type { EngineConfig } from './config.ts'
import { Engine } from './engine.ts'
import { createModel, type KvCacheDType, kvHeadBytes, surveyTensors } from './models/index.ts'
import { Device } from './native/device.ts'
import { LOGITS_AT_ONCE } from './sample/sampler.ts'
import { openDummy } from './weights/dummy.ts'
import { sourceEnvironment } from './weights/environment.ts'
import { GenerationConfig, type ModelFiles, readModelFiles } from './weights/files.ts'
import { checkJson, parseJson } from './weights/json.ts'
import { WeightReader } from './weights/load.ts'
import { openSource } from './weights/open.ts'
import { ModelError, type Progress, type Source, type SourceOptions } from './weights/source.ts'

/** Where models come from: flags over the environment. Plain data, which can be sent to a thread. */
export function sourceSettings(config: EngineConfig, env: Record<string, string | undefined>) {
  const found = sourceEnvironment(env)
  return {
    ...found,
    revision: config.revision ?? undefined,
    downloadDir: config.downloadDir ?? undefined,
    hfToken: config.hfToken ?? found.hfToken,
    hfEndpoint: config.hfEndpoint ?? found.hfEndpoint,
    offline: config.offline || found.offline,
    s3: { endpoint: config.s3.endpoint ?? found.s3?.endpoint, region: config.s3.region ?? found.s3?.region },
  } satisfies Omit<SourceOptions, 'clock' | 'random'>
}
export type SourceSettings = ReturnType<typeof sourceSettings>

/** Bringing a remote model's files here; reading its weights into memory. */
export type Stage = 'download' | 'load'

export type LoadHooks = {
  clock: Clock
  random: () => number
  onProgress?: (stage: Stage, progress: Progress) => void
  warn?: (message: string) => void
}

/** What is known of a model before its weights are read: plain data, which the engine thread sends to main. */
export type ModelFacts = {
  revision: string
  /** What decides the bits of the output: kernel ABI, instruction path, types, parallelism. */
  numerics: string
  device: string
  dtype: 'float32' | 'bfloat16'
  quantization: EngineConfig['quantization']
  kvCacheDtype: KvCacheDType
  capacity: Capacity
  vocabularySize: number
  tokenizerJson: string
  chatTemplate: string | null
  specialTokens: Record<string, string>
  eosTokenIds: number[]
  generationConfig: GenerationConfig
}

export type OpenedModel = { facts: ModelFacts; files: ModelFiles; source: Source; device: Device }

/** @throws ModelError with one line that says what to do */
export async function openModel(
  config: EngineConfig,
  settings: SourceSettings,
  hooks: LoadHooks,
): Promise<OpenedModel> {
  const { clock, random, warn, onProgress } = hooks
  const onDownload = (progress: Progress) => onProgress?.('download', progress)
  const source =
    config.loadFormat === 'dummy'
      ? await openDummy(config.model, surveyTensors)
      : await openSource(config.model, { ...settings, clock, random, warn, onProgress: onDownload })
  let device: Device | null = null
  try {
    const files = await readModelFiles(source)
    device = Device.open({ backend: 'cpu', threads: config.threads, isa: config.isa })
    return { facts: await gatherFacts(config, files, source, device), files, source, device }
  } catch (error) {
    device?.close()
    await source.close()
    throw error
  }
}

async function gatherFacts(
  config: EngineConfig,
  files: ModelFiles,
  source: Source,
  device: Device,
): Promise<ModelFacts> {
  const dtype = config.dtype !== 'auto' ? config.dtype : files.config.dtype === 'float32' ? 'float32' : 'bfloat16'
  const { quantization } = config
  const kvCacheDtype = config.kvCacheDtype === 'auto' ? dtype : config.kvCacheDtype
  const capacity = planCapacity({
    model: files.config,
    options: config,
    kvHeadBytes: kvHeadBytes(kvCacheDtype, files.config.heads.size),
    freeBytes: device.memory().free,
    weightBytes: countWeights(files) * (quantization ? 1 : dtype === 'float32' ? 4 : 2),
  })
  const generationConfig = await readGenerationConfig(config, files)
  const eos = generationConfig.eos_token_id ?? files.generationConfig.eos_token_id
  const tokenizerJson = await readTokenizer(config, files, source)
  return {
    // Work moves between engines of one revision only, and they must decode alike.
    revision: config.tokenizer === null ? files.revision : sha256(files.revision + tokenizerJson),
    numerics: `${device.info.numerics}/${dtype}${quantization ? `+${quantization}` : ''}/kv-${kvCacheDtype}/tp1`,
    device: device.info.name,
    dtype,
    quantization,
    kvCacheDtype,
    capacity,
    vocabularySize: files.config.vocabularySize,
    tokenizerJson,
    chatTemplate: await readTemplate(config, files),
    specialTokens: files.specialTokens,
    eosTokenIds: [...new Set([...files.config.eosTokenIds, ...[eos ?? []].flat()])],
    generationConfig,
  }
}

/** `close` gives all memory of the model back. */
export type LoadedEngine = { engine: Engine; close(): void }

export async function loadEngine(
  config: EngineConfig,
  { facts, files, source, device }: OpenedModel,
  hooks: LoadHooks,
): Promise<LoadedEngine> {
  const { dtype, quantization, kvCacheDtype, capacity } = facts
  const reader = new WeightReader(source, files.tensors, (progress) => hooks.onProgress?.('load', progress))
  const model = await createModel(device, files.config, reader, {
    dtype,
    quantization,
    kvCacheDtype,
    maxTokens: config.maxNumBatchedTokens,
    maxLogits: LOGITS_AT_ONCE,
    maxPositions: capacity.maxModelLength,
  })
  await source.close()
  const engine = new Engine(model, device, {
    blockSize: capacity.blockSize,
    numBlocks: capacity.blocks,
    maxModelLen: capacity.maxModelLength,
    maxNumSeqs: config.maxNumSeqs,
    maxNumBatchedTokens: config.maxNumBatchedTokens,
    longPrefillTokenThreshold: config.longPrefillTokenThreshold,
    enableChunkedPrefill: config.enableChunkedPrefill,
    enablePrefixCaching: config.enablePrefixCaching,
    policy: config.staticBatching ? 'static' : 'continuous',
    eosTokenIds: facts.eosTokenIds,
    speculation: config.speculativeConfig,
  })
  const close = () => {
    engine.free()
    model.free()
    device.close()
  }
  return { engine, close }
}

function countWeights(files: ModelFiles): number {
  let elements = 0
  for (const { shape } of files.tensors.values()) elements += shape.reduce((product, size) => product * size, 1)
  return elements
}

/** Sampling defaults: the model's, none ("vllm"), or those of a folder; then --override-generation-config over them. */
async function readGenerationConfig(config: EngineConfig, files: ModelFiles): Promise<GenerationConfig> {
  const { generationConfig: choice, overrideGenerationConfig: override } = config
  if (choice === 'auto' || choice === 'vllm') {
    const base = choice === 'auto' ? files.generationConfig : {}
    return checkJson('--override-generation-config', GenerationConfig, { ...base, ...override })
  }
  const file = join(choice, 'generation_config.json')
  const base = parseJson(file, await readOption('--generation-config', file))
  return checkJson(file, GenerationConfig, { ...(base as object), ...override })
}

async function readTokenizer(config: EngineConfig, files: ModelFiles, source: Source): Promise<string> {
  if (config.tokenizer !== null) {
    const isFolder = (await stat(config.tokenizer).catch(() => null))?.isDirectory() ?? false
    return readOption('--tokenizer', isFolder ? join(config.tokenizer, 'tokenizer.json') : config.tokenizer)
  }
  if (files.tokenizerJson !== null) return files.tokenizerJson
  throw new ModelError(`${source.name} has no tokenizer.json; name a folder that has one with --tokenizer`)
}

/** A template is told from a file's name by its braces. */
async function readTemplate(config: EngineConfig, files: ModelFiles): Promise<string | null> {
  if (config.chatTemplate === null) return files.chatTemplate
  return config.chatTemplate.includes('{') ? config.chatTemplate : readOption('--chat-template', config.chatTemplate)
}

async function readOption(flag: string, file: string): Promise<string> {
  return readFile(file, 'utf8').catch((error: Error) => {
    throw new ModelError(`${flag}: cannot read ${file}: ${error.message}`)
  })
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
