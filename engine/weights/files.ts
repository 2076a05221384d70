// Everything a model is, apart from the weights themselves: its configuration, tokenizer, chat template, where each
// tensor lies, and the revision that tells two models of one name apart. Read once at start-up, from any Source.
// The small files come first: what config.json rules out is refused before a weight file is touched.
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { type ModelConfig, parseModelConfig } from '../models/config.ts'
import { checkJson, parseJson } from './json.ts'
import { readTensors, type TensorEntry } from './safetensors.ts'
import { type FileEntry, ModelError, type Source } from './source.ts'

/** generation_config.json: the model's own defaults of sampling. Fields of other kinds are kept as they are. */
export const GenerationConfig = z.looseObject({
  temperature: z.number().nonnegative().nullish(),
  top_p: z.number().positive().max(1).nullish(),
  top_k: z.int().min(-1).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  repetition_penalty: z.number().positive().nullish(),
  max_new_tokens: z.int().positive().nullish(),
  eos_token_id: z.union([z.int().nonnegative(), z.array(z.int().nonnegative())]).nullish(),
})
export type GenerationConfig = z.infer<typeof GenerationConfig>

export type ModelFiles = {
  config: ModelConfig
  generationConfig: GenerationConfig
  tokenizerConfig: Record<string, unknown>
  /** tokenizer.json as it is; null: the model speaks token ids only. */
  tokenizerJson: string | null
  chatTemplate: string | null
  /** bos_token, eos_token and so on, as text: what a chat template may refer to. */
  specialTokens: Record<string, string>
  tensors: ReadonlyMap<string, TensorEntry>
  /** SHA-256 over names, sizes and contents. */
  revision: string
}

const smallFiles = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'chat_template.json',
] as const
type SmallFile = (typeof smallFiles)[number]

const sampleBytes = 4096

const Template = z.union([z.string(), z.array(z.object({ name: z.string(), template: z.string() }))])
const TokenizerConfig = z.looseObject({ chat_template: Template.nullish() })
const Text = z.union([z.string(), z.looseObject({ content: z.string() }).transform((token) => token.content)])

export async function readModelFiles(source: Source): Promise<ModelFiles> {
  const entries = await source.list()
  const present = smallFiles.filter((name) => entries.some((entry) => entry.name === name))
  const texts = new Map(await Promise.all(present.map(async (name) => [name, await source.text(name)] as const)))
  if (!texts.has('config.json')) throw new ModelError(`${source.name} has no config.json`)
  const read = <Value>(name: SmallFile, schema: z.ZodType<Value>): Value =>
    checkJson(name, schema, parseJson(name, texts.get(name) ?? '{}'))

  const config = parseModelConfig(read('config.json', z.unknown()))
  const generationConfig = read('generation_config.json', GenerationConfig)
  const tokenizerConfig = read('tokenizer_config.json', TokenizerConfig)
  const specialTokensMap = read('special_tokens_map.json', z.looseObject({}))
  const tensors = await readTensors(source)
  return {
    config,
    generationConfig,
    tokenizerConfig,
    tokenizerJson: texts.get('tokenizer.json') ?? null,
    chatTemplate:
      texts.get('chat_template.jinja') ??
      defaultTemplate(tokenizerConfig.chat_template) ??
      defaultTemplate(read('chat_template.json', TokenizerConfig).chat_template),
    specialTokens: { ...specialTexts(specialTokensMap), ...specialTexts(tokenizerConfig) },
    tensors,
    revision: await hashManifest(source, entries, texts, tensors),
  }
}

/** Some models have a template for tool use or RAG beside the one called default. */
function defaultTemplate(template: z.infer<typeof Template> | null | undefined): string | null {
  if (!Array.isArray(template)) return template ?? null
  return (template.find(({ name }) => name === 'default') ?? template[0])?.template ?? null
}

function specialTexts(fields: Record<string, unknown>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) => {
      const text = name.endsWith('_token') ? Text.safeParse(value) : null
      return text?.success ? [[name, text.data]] : []
    }),
  )
}

/**
 * Small files count by content, weight files by their header and the first bytes of every tensor, which any training
 * changes: start-up does not read them twice, and a model has one revision wherever it is loaded from, so that engines
 * of one pool may load it from a folder, from S3 and from the hub.
 */
async function hashManifest(
  source: Source,
  entries: FileEntry[],
  texts: Map<string, string>,
  tensors: ReadonlyMap<string, TensorEntry>,
): Promise<string> {
  const weightFiles = new Set([...tensors.values()].map((tensor) => tensor.file))
  const manifest = createHash('sha256')
  for (const { name, bytes } of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const text = texts.get(name)
    if (text !== undefined) manifest.update(`${name} ${createHash('sha256').update(text).digest('hex')}\n`)
    else if (weightFiles.has(name)) manifest.update(`${name} ${bytes} ${await sampleTensors(source, name, tensors)}\n`)
  }
  return manifest.digest('hex')
}

async function sampleTensors(source: Source, file: string, tensors: ReadonlyMap<string, TensorEntry>): Promise<string> {
  const inFile = [...tensors.values()].filter((tensor) => tensor.file === file).sort((a, b) => a.begin - b.begin)
  const samples = inFile.map(({ begin, end }) => source.read(file, begin, Math.min(end, begin + sampleBytes)))
  const hash = createHash('sha256')
  for (const { name, dtype, shape } of inFile) hash.update(`${name} ${dtype} ${shape}\n`)
  for (const sample of await Promise.all(samples)) hash.update(sample)
  return hash.digest('hex')
}
