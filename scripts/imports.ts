// Keeps the walls between the rooms: who may import whom, which package has which single owner, and that time, chance
// and the environment enter only through adapters. Part of `npm run check`; prints one line per violation, exit code 1.
import { globSync, readFileSync } from 'node:fs'
import { posix } from 'node:path'
import { fileURLToPath } from 'node:url'

const queueShapes = ['queue/job.ts', 'queue/event.ts', 'queue/prefix.ts', 'queue/card.ts', 'queue/clock.ts']

/** The first row whose pattern fits a file says what it may import; `types` may be imported as types only. */
const rules: { files: RegExp; may: RegExp; types?: RegExp }[] = [
  { files: /^(scripts|test)\//, may: /./ },
  { files: /^infra\//, may: /^(infra|queue)\// },
  { files: /^queue\//, may: /^queue\// },
  { files: /^gateway\/prompt\/(card|prompts)\.ts/, may: /^(gateway\/prompt\/|gateway\/errors\.ts|queue\/)/ },
  { files: /^gateway\/prompt\//, may: /^gateway\/(prompt\/|errors\.ts)/, types: /^queue\// },
  { files: /^gateway\/openai\//, may: /^gateway\/(openai\/|errors\.ts)/, types: /^(queue\/|gateway\/config\.ts)/ },
  { files: /^gateway\//, may: /^(gateway|queue)\// },

  // Inside the engine, downward only.
  { files: /^engine\/(main|daemon|beat|beat-[\w-]+)\.ts/, may: /^(engine|queue)\// },
  { files: /^engine\/(config|errors)\.ts/, may: /^engine\/errors\.ts/ },
  {
    files: /^engine\/scheduler\//,
    may: /^engine\/(scheduler\/|errors\.ts)/,
    types: /^engine\/(config|engine|batch)\.ts/,
  },
  { files: /^engine\/output\//, may: /^engine\/output\//, types: /^engine\/engine\.ts/ },
  { files: /^engine\/native\//, may: /^engine\/(native\/|errors\.ts)/ },
  { files: /^engine\/sample\//, may: /^engine\/(sample\/|native\/|errors\.ts)/, types: /^engine\/scheduler\// },
  { files: /^engine\/weights\//, may: /^engine\/(weights\/|native\/|errors\.ts|models\/config\.ts)/ },
  {
    files: /^engine\/models\//,
    may: /^engine\/(models\/|native\/|errors\.ts|weights\/(json|source)\.ts)/,
    types: /^engine\/(weights\/|batch\.ts)/,
  },
  { files: /^engine\/batch\.ts/, may: /^engine\/native\//, types: /^engine\/(scheduler\/|models\/|engine\.ts)/ },
  { files: /^engine\/engine\.ts/, may: /^engine\/(scheduler|sample|models|native|batch|beam\.ts|errors\.ts)/ },
  { files: /^engine\//, may: /^engine\// },
]

/** Shapes of the queue are common ground; so is nothing else. */
function mayImport(file: string, target: string, typeOnly: boolean): boolean {
  const rule = rules.find(({ files }) => files.test(file))
  if (!rule) return false
  if (rule.may.test(target)) return true
  if (typeOnly && rule.types?.test(target)) return true
  return file.startsWith('engine/') && queueShapes.includes(target)
}

/** Packages with an owner; every other dependency is free. */
const owners: Record<string, RegExp> = {
  hono: /^gateway\//,
  '@hono/node-server': /^gateway\//,
  zod: /^(gateway\/(openai|prompt|routes)\/|queue\/|engine\/models\/|engine\/weights\/|scripts\/|\w+\/config\.ts)/,
  ioredis: /^queue\//,
  bullmq: /^queue\//,
  koffi: /^engine\/native\//,
  '@aws-sdk/client-s3': /^(engine\/weights|queue)\//,
  undici: /^(engine\/weights|scripts|infra|test)\//,
  '@huggingface/jinja': /^gateway\/prompt\//,
  tokenizers: /^gateway\/prompt\//,
  'prom-client': /^(gateway|engine)\//,
  openai: /^(test|scripts)\//,
}

const edges =
  /\b(Date\.now|Math\.random|performance\.now|setTimeout|setInterval|setImmediate|process\.env)\b|new Date\(\)/
const adapters = /^(scripts\/|test\/|queue\/(clock|redis)\.ts|(gateway|engine)\/(main|config)\.ts)/
const bannedNames = /(^|\/)(utils?|helpers?|common|misc|manager|service|types)\.ts$/

type Import = { target: string; typeOnly: boolean; line: number }

export function importsOf(source: string): Import[] {
  const code = withoutComments(source)
  const statement =
    /^\s*(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?'([^']+)'|\bimport\(\s*'([^']+)'|new URL\(\s*'(\.[^']+\.ts)'/gm
  return [...code.matchAll(statement)].map((match) => ({
    target: (match[2] ?? match[3] ?? match[4]) as string,
    typeOnly: match[1] !== undefined,
    line: code.slice(0, match.index + match[0].length).split('\n').length,
  }))
}

/** Blanks comments and keeps line numbers. Good enough for code that Biome formats. */
function withoutComments(source: string): string {
  const blank = (text: string) => text.replace(/[^\n]/g, ' ')
  return source.replace(/\/\*[\s\S]*?\*\//g, blank).replace(/(^|\s)\/\/.*$/gm, blank)
}

export function violationsOf(file: string, source: string): string[] {
  const found: string[] = []
  if (bannedNames.test(file)) found.push(`${file}: a file is named after its one idea, not ${posix.basename(file)}`)
  for (const { target, typeOnly, line } of importsOf(source)) {
    if (target.startsWith('.')) {
      const path = posix.join(posix.dirname(file), target)
      if (!mayImport(file, path, typeOnly)) found.push(`${file}:${line}: may not import ${path}`)
    } else if (!target.startsWith('node:')) {
      const name = target
        .split('/')
        .slice(0, target.startsWith('@') ? 2 : 1)
        .join('/')
      if (owners[name] && !owners[name].test(file)) found.push(`${file}:${line}: ${name} is not for this folder`)
    }
  }
  if (!adapters.test(file)) {
    withoutComments(source)
      .split('\n')
      .forEach((text, index) => {
        const match = edges.exec(text)
        if (match)
          found.push(`${file}:${index + 1}: ${match[0]} belongs to an adapter; take a Clock, a seed or a config`)
      })
  }
  return found
}

/** Chains of value imports that come back to where they began, each once. */
export function cyclesOf(graph: Map<string, string[]>): string[] {
  const found: string[] = []
  const state = new Map<string, 'open' | 'done'>()
  const visit = (file: string, path: string[]): void => {
    if (state.get(file) === 'done') return
    if (state.get(file) === 'open') {
      found.push(`cycle: ${[...path.slice(path.indexOf(file)), file].join(' -> ')}`)
      return
    }
    state.set(file, 'open')
    for (const next of graph.get(file) ?? []) visit(next, [...path, file])
    state.set(file, 'done')
  }
  for (const file of graph.keys()) visit(file, [])
  return found
}

function check(root: string): string[] {
  const files = globSync('{gateway,engine,queue,infra,scripts,test}/**/*.ts', { cwd: root }).sort()
  const sources = new Map(files.map((file) => [file, readFileSync(`${root}/${file}`, 'utf8')]))
  const graph = new Map(
    [...sources].map(([file, source]) => {
      const values = importsOf(source).filter(({ target, typeOnly }) => target.startsWith('.') && !typeOnly)
      return [file, values.map(({ target }) => posix.join(posix.dirname(file), target))]
    }),
  )
  return [...[...sources].flatMap(([file, source]) => violationsOf(file, source)), ...cyclesOf(graph)]
}

if (import.meta.main) {
  const found = check(fileURLToPath(new URL('..', import.meta.url)))
  for (const line of found) console.error(line)
  console.log(found.length === 0 ? 'imports: every wall stands' : `imports: ${found.length} violations`)
  if (found.length > 0) process.exitCode = 1
}
