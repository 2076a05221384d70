// `pagestream verify`: is what this machine computes what others compute? Compares model folders with their golden.json,
// a tokenizer with its vectors, chat templates with their renderings; the exit code says whether all agree.
import { basename, resolve } from 'node:path'
import { type KvCacheDType, kvCacheDtypes } from '../engine/models/index.ts'
import { Device, type Isa, isas } from '../engine/native/device.ts'
import { ModelError } from '../engine/weights/source.ts'
import { type Flag, parseFlags, UsageError } from './cli/flags.ts'
import { limits, limitsOf, type ModelResult, type Precision, verifyModel } from './verify/model.ts'
import { verifyTemplates } from './verify/templates.ts'
import { verifyTokenizer } from './verify/tokenizer.ts'

const flags: readonly Flag[] = [
  { name: '--dtype', kind: 'string', choices: Object.keys(limits), help: 'type of weights and KV cache (float32)' },
  { name: '--quantization', kind: 'string', choices: ['int8'], help: 'int8: quantise while loading' },
  { name: '--kv-cache-dtype', kind: 'string', choices: kvCacheDtypes, help: 'type of the KV cache (that of dtype)' },
  { name: '--isa', kind: 'string', help: 'instruction paths, joined by commas (auto)' },
  { name: '--threads', kind: 'integer', help: 'threads of the kernels; 0 is all cores (0)' },
  { name: '--tokenizer', kind: 'string', help: 'DIR with tokenizer.json: compare it with vectors.json instead' },
  { name: '--templates', kind: 'string', help: 'golden.json beside chat templates: compare those instead' },
]

export function help(): string {
  const rows = flags.map(({ name, help }) => `  ${name.padEnd(14)}${help}`)
  return `Usage: pagestream verify DIR...                          models with golden.json
       pagestream verify --tokenizer DIR vectors.json
       pagestream verify --templates golden.json

${rows.join('\n')}`
}

export async function verify(argv: string[], print: (line: string) => void = console.log): Promise<number> {
  const { values, positional } = parseFlags(flags, argv, {})
  if (typeof values.templates === 'string') return printTemplates(values.templates, print)
  if (typeof values.tokenizer === 'string') {
    const [vectors] = positional
    if (!vectors) throw new UsageError('say: pagestream verify --tokenizer DIR vectors.json')
    return printTokenizer(values.tokenizer, vectors, print)
  }
  if (positional.length === 0) throw new UsageError('give one or more model folders with a golden.json (--help)')
  const precision: Precision = {
    dtype: (values.dtype ?? 'float32') as Precision['dtype'],
    quantization: (values.quantization ?? null) as 'int8' | null,
    ...(values.kvCacheDtype === undefined ? {} : { kvCacheDtype: values.kvCacheDtype as KvCacheDType }),
  }
  const threads = (values.threads ?? 0) as number
  return printModels(positional, precision, parseIsas(values.isa), threads, print)
}

function parseIsas(given: unknown): Isa[] {
  return String(given ?? 'auto')
    .split(',')
    .map((name) => {
      const isa = isas.find((isa) => isa === name)
      if (!isa) throw new UsageError(`--isa must be of ${isas.join(', ')}, not "${name}"`)
      return isa
    })
}

async function printModels(
  folders: string[],
  precision: Precision,
  isas: Isa[],
  threads: number,
  print: (line: string) => void,
): Promise<number> {
  const width = Math.max(...folders.map((folder) => nameOf(folder).length), 'model'.length)
  print(`${'model'.padEnd(width)}  ${modelColumns.map(([title, size]) => title.padEnd(size)).join('  ')}`)
  let missed = 0
  for (const isa of isas) {
    const device = Device.open({ backend: 'cpu', threads, isa })
    for (const folder of folders) {
      const name = nameOf(folder).padEnd(width)
      try {
        const result = await verifyModel(device, folder, precision)
        const cells = modelColumns.map(([, size, cell]) => cell(result, device.info.isa).padEnd(size))
        print(`${name}  ${cells.join('  ')}`.trimEnd())
        if (!result.passed) missed++
      } catch (error) {
        if (!(error instanceof ModelError)) throw error
        print(`${name}  ${error.message}`)
        missed++
      }
    }
    device.close()
  }
  const runs = folders.length * isas.length
  const { tolerance, tossUp } = limitsOf(precision)
  const greedy = `greedy tokens equal${tossUp > 0 ? ` unless within ${tossUp} of each other` : ''}`
  print(`${runs - missed} of ${runs} agree (${nameOfPrecision(precision)}: |Δ| at most ${tolerance}, ${greedy})`)
  return missed > 0 ? 1 : 0
}

function nameOfPrecision({ dtype, quantization, kvCacheDtype }: Precision): string {
  return [dtype, quantization, kvCacheDtype && `kv ${kvCacheDtype}`].filter(Boolean).join(', ')
}

const modelColumns: [string, number, (result: ModelResult, isa: string) => string][] = [
  ['isa', 11, (_, isa) => isa],
  ['max |Δlogit|', 12, ({ comparison }) => comparison.logitError?.toExponential(1) ?? '-'],
  ['|Δlogprob|', 10, ({ comparison }) => comparison.logprobError?.toExponential(1) ?? '-'],
  ['top 20', 9, ({ comparison: { topPositions } }) => ratio(topPositions.agree, topPositions.of)],
  ['greedy', 9, ({ comparison: { greedyTokens } }) => ratio(greedyTokens.equal, greedyTokens.of)],
  ['text', 5, ({ texts }) => ratio(texts.equal, texts.of)],
  ['paged', 5, ({ pagedDifference }) => pagedDifference ?? 'equal'],
  ['', 4, ({ passed }) => (passed ? 'ok' : 'MISS')],
]

function ratio(count: number, of: number): string {
  return of > 0 ? `${count}/${of}` : '-'
}

function nameOf(folder: string): string {
  return basename(resolve(folder))
}

async function printTokenizer(folder: string, vectors: string, print: (line: string) => void): Promise<number> {
  const { checks, misses } = await verifyTokenizer(folder, vectors)
  for (const miss of misses.slice(0, 10)) print(miss)
  if (misses.length > 10) print(`and ${misses.length - 10} more`)
  print(`${nameOf(folder)}: ${checks - misses.length} of ${checks} agree`)
  return misses.length > 0 ? 1 : 0
}

function printTemplates(golden: string, print: (line: string) => void): number {
  const results = verifyTemplates(golden)
  const width = Math.max(...results.map(({ name }) => name.length))
  for (const { name, passed, failed, unsupported } of results) {
    const problems = [...failed.map((id) => `${id} differs`), ...unsupported.map((id) => `${id} unsupported`)]
    print(`${name.padEnd(width)}  ${String(passed.length).padStart(2)} passed  ${problems.join(', ')}`.trimEnd())
  }
  const [passed, failed, unsupported] = (['passed', 'failed', 'unsupported'] as const).map((outcome) =>
    results.reduce((sum, result) => sum + result[outcome].length, 0),
  )
  print(`${passed} renderings agree, ${failed} differ, ${unsupported} unsupported`)
  return failed === 0 && unsupported === 0 ? 0 : 1
}
