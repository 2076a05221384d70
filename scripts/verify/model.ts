// One model folder against its golden.json: loads the model, runs every prompt and its greedy continuation through the
// paged cache in four ways, compares the first with the golden and the others with the first, bit for bit.
import { hash } from 'node:crypto'
import { createModel, type ModelOptions } from '../../engine/models/index.ts'
import type { Device } from '../../engine/native/device.ts'
import { Vocab } from '../../engine/output/vocab.ts'
import { readModelFiles } from '../../engine/weights/files.ts'
import { openFolder } from '../../engine/weights/folder.ts'
import { WeightReader } from '../../engine/weights/load.ts'
import { Comparison } from './compare.ts'
import { assertFits, type GoldenPrompt, readGolden } from './golden.ts'
import { PagedRunner } from './paged.ts'
import { decodeAll } from './tokenizer.ts'

export type ModelResult = {
  comparison: Comparison
  texts: { equal: number; of: number }
  /** null: the four ways agree; else where they do not. */
  pagedDifference: string | null
  passed: boolean
}

/**
 * Of logits, and of the choice between two tokens. bfloat16 keeps 8 bits of weights, activations and cache: measured on
 * the goldens, whose logits are of the size of 10, it moves logits by up to 0.13 and log-probabilities by up to 0.2.
 */
export const limits = {
  float32: { tolerance: 2e-4, tossUp: 0 },
  bfloat16: { tolerance: 0.3, tossUp: 0.3 },
}
/** int8 keeps 7 bits of the largest of the numbers that share a scale: logits move by up to 0.6, one by 1.1. */
const int8Limits = { tolerance: 1.5, tossUp: 1.5 }

export type Precision = Pick<ModelOptions, 'dtype' | 'quantization' | 'kvCacheDtype'>

export function limitsOf({ dtype, quantization, kvCacheDtype = dtype }: Precision) {
  if (quantization || kvCacheDtype === 'int8_per_token_head') return int8Limits
  return limits[kvCacheDtype === 'float32' ? dtype : 'bfloat16']
}

const blockSize = 16

/** Prompts alone or side by side, and how much of each runs in a step. */
const ways = [
  { name: 'whole prompts', together: false, chunk: Infinity },
  { name: 'chunks of 7', together: false, chunk: 7 },
  { name: 'one by one', together: false, chunk: 1 },
  { name: 'side by side', together: true, chunk: 16 },
]

export async function verifyModel(device: Device, folder: string, precision: Precision): Promise<ModelResult> {
  const goldens = readGolden(folder)
  const lengths = goldens.map(({ ids, greedy }) => ids.length + greedy.length)
  const maxTokens = Math.max(...goldens.map(({ ids }) => ids.length), 16 * goldens.length)
  const source = await openFolder(folder)
  try {
    const files = await readModelFiles(source)
    assertFits(goldens, files.config.vocabularySize)
    const reader = new WeightReader(source, files.tensors)
    const options = { ...precision, maxTokens, maxLogits: maxTokens, maxPositions: Math.max(...lengths) }
    const model = await createModel(device, files.config, reader, options)
    const blocks = lengths.reduce((sum, length) => sum + Math.ceil(length / blockSize), 0)
    const runner = new PagedRunner(device, model, blocks, blockSize)
    try {
      const comparison = new Comparison(limitsOf(precision))
      const pagedDifference = compareAll(runner, goldens, comparison)
      const equal = goldens.filter((golden) => comparison.isEqual(golden))
      const texts = compareTexts(files.tokenizerJson, equal)
      const passed = comparison.passed && pagedDifference === null && texts.equal === texts.of
      return { comparison, texts, pagedDifference, passed }
    } finally {
      runner.free()
      model.free()
    }
  } finally {
    await source.close()
  }
}

/** Gives the first place where two ways to fill the cache lead to different bits, null if none does. */
function compareAll(runner: PagedRunner, goldens: GoldenPrompt[], comparison: Comparison): string | null {
  const [first, ...others] = ways.map((way) => {
    const digests = goldens.map(() => [] as string[])
    runWay(runner, goldens, way, (prompt, position, logits) => {
      if (way === ways[0]) comparison.logits(goldens[prompt]!, position, logits)
      digests[prompt]!.push(hash('sha1', new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength)))
    })
    return { name: way.name, digests }
  })
  for (const { name, digests } of others) {
    for (const [prompt, theirs] of digests.entries()) {
      const position = theirs.findIndex((digest, i) => digest !== first!.digests[prompt]![i])
      if (position >= 0) return `${name}: prompt ${prompt}, position ${position}`
    }
  }
  return null
}

function runWay(
  runner: PagedRunner,
  goldens: GoldenPrompt[],
  { together, chunk }: (typeof ways)[number],
  visit: (prompt: number, position: number, logits: Float32Array) => void,
): void {
  const run = (from: number, group: GoldenPrompt[]) => {
    const prompts = group.map(({ ids }) => ids)
    const steps = group.map(({ greedy }) => greedy.length)
    runner.greedy(prompts, steps, chunk, (i, position, logits) => visit(from + i, position, logits))
  }
  if (together) run(0, goldens)
  else for (const [i, golden] of goldens.entries()) run(i, [golden])
}

/** Of prompts whose tokens are the golden's: is the text, too? */
function compareTexts(tokenizerJson: string | null, goldens: GoldenPrompt[]) {
  const spoken = goldens.filter(({ text }) => text !== undefined)
  if (!tokenizerJson || spoken.length === 0) return { equal: 0, of: 0 }
  const vocab = new Vocab(tokenizerJson)
  return {
    equal: spoken.filter(({ greedy, text }) => decodeAll(vocab, greedy, true) === text).length,
    of: spoken.length,
  }
}
