// What a benchmark sends. Random prompts are token ids drawn from the ids of a known text, as the server itself
// tokenizes it: lengths are exact, no tokenizer is needed on this side, and vLLM, llama-server and Pagestream all
// answer /tokenize.
import { readFile } from 'node:fs/promises'
import type { Options } from './options.ts'
import { Random } from './random.ts'

export type Sample = { prompt: string | number[]; inputTokens: number; outputTokens: number }
export type Tokenize = (text: string) => Promise<number[]>
export type Detokenize = (ids: number[]) => Promise<string>

const vocabularyText = `The quick brown fox jumps over the lazy dog while seven wizards quietly measure the depth of a cold river.
Memory is cut into pages; a table says where each page lies, and nobody moves a page to make room for another. In 1969 two people
walked on the Moon, 384,400 kilometres away. "Why?" asked the child. Because it was there, and because a long list of small steps,
each checked twice, had been taken before. def f(x): return x * (x + 1) // 2; for (let i = 0; i < 10; i++) sum += a[i];`

export async function loadDataset(options: Options, tokenize: Tokenize, detokenize: Detokenize): Promise<Sample[]> {
  const random = new Random(options.seed)
  const name = options['dataset-name']
  if (name === 'sharegpt' || name === 'custom') return fromFile(options, random, tokenize)
  const pool = [...new Set(await tokenize(vocabularyText))]
  if (pool.length === 0) throw new Error('the server tokenized the sample text to nothing')
  const samples = name === 'random' ? randomPrompts(options, random, pool) : prefixRepetition(options, random, pool)
  if (options.backend !== 'openai-chat') return samples
  return Promise.all(samples.map(async (s) => ({ ...s, prompt: await detokenize(s.prompt as number[]) })))
}

function ids(random: Random, pool: number[], length: number): number[] {
  return Array.from({ length }, () => random.pick(pool))
}

function randomPrompts(options: Options, random: Random, pool: number[]): Sample[] {
  const ratio = options['random-range-ratio']
  const draw = (mean: number) =>
    Math.max(1, random.integer(Math.floor(mean * (1 - ratio)), Math.ceil(mean * (1 + ratio))))
  const prefix = ids(random, pool, options['random-prefix-len'])
  return Array.from({ length: options['num-prompts'] }, () => {
    const prompt = [...prefix, ...ids(random, pool, draw(options['input-len'] ?? options['random-input-len']))]
    return {
      prompt,
      inputTokens: prompt.length,
      outputTokens: draw(options['output-len'] ?? options['random-output-len']),
    }
  })
}

function prefixRepetition(options: Options, random: Random, pool: number[]): Sample[] {
  const prefixes = Array.from({ length: options['prefix-repetition-num-prefixes'] }, () =>
    ids(random, pool, options['prefix-repetition-prefix-len']),
  )
  const outputTokens = options['output-len'] ?? options['prefix-repetition-output-len']
  return Array.from({ length: options['num-prompts'] }, (_, i) => {
    const prompt = [...prefixes[i % prefixes.length]!, ...ids(random, pool, options['prefix-repetition-suffix-len'])]
    return { prompt, inputTokens: prompt.length, outputTokens }
  })
}

type Turn = { value?: string }
type Row = { prompt?: string; output_tokens?: number; conversations?: Turn[]; conversation?: Turn[] }

/** ShareGPT: first turn asks, the length of the second is the length wanted. Custom: one JSON object a line. */
async function fromFile(options: Options, random: Random, tokenize: Tokenize): Promise<Sample[]> {
  const path = options['dataset-path']
  if (!path) throw new Error(`--dataset-path is needed with --dataset-name ${options['dataset-name']}`)
  const content = await readFile(path, 'utf8')
  const rows: Row[] = content.trimStart().startsWith('[')
    ? JSON.parse(content)
    : content
        .split('\n')
        .filter((line) => line.trim())
        .map((line) => JSON.parse(line))
  shuffle(rows, random)
  const samples: Sample[] = []
  for (const row of rows) {
    if (samples.length === options['num-prompts']) break
    const turns = row.conversations ?? row.conversation
    const prompt = turns ? turns[0]?.value : row.prompt
    if (!prompt || (turns && !turns[1]?.value)) continue
    const recorded = async () => (await tokenize(turns![1]!.value!)).length
    const outputTokens =
      options['output-len'] ??
      (turns
        ? (options['sharegpt-output-len'] ?? (await recorded()))
        : (row.output_tokens ?? options['custom-output-len']))
    samples.push({ prompt, inputTokens: (await tokenize(prompt)).length, outputTokens })
  }
  if (samples.length === 0) throw new Error(`--dataset-path ${path} holds no usable prompt`)
  for (let i = 0; samples.length < options['num-prompts']; i++) samples.push(samples[i]!)
  return samples
}

function shuffle<T>(values: T[], random: Random): void {
  for (let i = values.length - 1; i > 0; i--) {
    const j = random.integer(0, i)
    const held = values[i]!
    values[i] = values[j]!
    values[j] = held
  }
}
