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

/** bfloat16 keeps 8 bits: what its rounding does to the goldens' logits, with room for other models. */
export const tolerances = { float32: 2e-4, bfloat16: 0.25 }

const blockSize = 16

/** Prompts alone or side by side, and how much of each runs in a step. */
const ways = [
  { name: 'whole prompts', together: false, chunk: Infinity },
  { name: 'chunks of 7', together: false, chunk: 7 },
  { name: 'one by one', together: false, chunk: 1 },
  { name: 'side by side', together: true, chunk: 16 },
]

export async function verifyModel(device: Device, folder: string, dtype: ModelOptions['dtype']): Promise<ModelResult> {
  const goldens = readGolden(folder)
  const lengths = goldens.map(({ ids, greedy }) => ids.length + greedy.length)
  const maxTokens = Math.max(...goldens.map(({ ids }) => ids.length), 16 * goldens.length)
  const source = await openFolder(folder)
  try {
    const files = await readModelFiles(source)
    assertFits(goldens, files.config.vocabularySize)
    const reader = new WeightReader(source, files.tensors)
    const options = { dtype, maxTokens, maxLogits: maxTokens, maxPositions: Math.max(...lengths) }
    const model = await createModel(device, files.config, reader, options)
    const blocks = lengths.reduce((sum, length) => sum + Math.ceil(length / blockSize), 0)
    const runner = new PagedRunner(device, model, blocks, blockSize)
    try {
      const { comparison, tokens, pagedDifference } = compareAll(runner, goldens, tolerances[dtype])
      const texts = compareTexts(files.tokenizerJson, goldens, tokens)
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

function compareAll(runner: PagedRunner, goldens: GoldenPrompt[], tolerance: number) {
  const comparison = new Comparison(tolerance)
  const [first, ...others] = ways.map((way) => {
    const seen = goldens.map(() => [] as string[])
    const tokens = runWay(runner, goldens, way, (prompt, position, logits) => {
      const golden = goldens[prompt]!
      if (way === ways[0] && position < golden.ids.length) comparison.logits(golden, position, logits)
      seen[prompt]!.push(hash('sha1', new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength)))
    })
    return { name: way.name, seen, tokens }
  })
  for (const [i, golden] of goldens.entries()) comparison.greedy(golden, first!.tokens[i]!)

  let pagedDifference: string | null = null
  for (const { name, seen } of others) {
    for (const [prompt, digests] of seen.entries()) {
      const position = digests.findIndex((digest, i) => digest !== first!.seen[prompt]![i])
      if (position >= 0) pagedDifference ??= `${name}: prompt ${prompt}, position ${position}`
    }
  }
  return { comparison, tokens: first!.tokens, pagedDifference }
}

function runWay(
  runner: PagedRunner,
  goldens: GoldenPrompt[],
  { together, chunk }: (typeof ways)[number],
  visit: (prompt: number, position: number, logits: Float32Array) => void,
): number[][] {
  const run = (from: number, group: GoldenPrompt[]): number[][] => {
    const prompts = group.map(({ ids }) => ids)
    const steps = group.map(({ greedy }) => greedy.length)
    return runner.greedy(prompts, steps, chunk, (i, position, logits) => visit(from + i, position, logits))
  }
  return together ? run(0, goldens) : goldens.flatMap((golden, i) => run(i, [golden]))
}

function compareTexts(tokenizerJson: string | null, goldens: GoldenPrompt[], tokens: number[][]) {
  const expected = goldens.map(({ text }) => text)
  if (!tokenizerJson || expected.every((text) => text === undefined)) return { equal: 0, of: 0 }
  const vocab = new Vocab(tokenizerJson)
  const equal = tokens.filter((ids, i) => decodeAll(vocab, ids, true) === expected[i]).length
  return { equal, of: expected.length }
}
