// What `bench throughput` and `bench latency` share: the engine in this process, without queue and HTTP, under the flags
// of `pagestream engine`; and a record of its steps, which occupancy.ts draws.
import { createWriteStream } from 'node:fs'
import { finished } from 'node:stream/promises'
import type { EngineStats } from '../../engine/engine.ts'
import type { Clock } from '../../queue/clock.ts'
import { demoModel, engineConfig, modelOf } from '../cli/configure.ts'
import { type Flag, keyOf, type Parsed, parseFlags } from '../cli/flags.ts'
import { formatHelp } from '../cli/help.ts'
import { log } from '../cli/log.ts'
import { engineFlags, type FlagGroup, ignoredFlags, sharedFlags } from '../cli/server-flags.ts'
import { LLM, type StepListener } from '../llm.ts'

const common: Flag[] = [
  { name: '--output-json', kind: 'string', help: 'file for the result as JSON' },
  {
    name: '--record-steps',
    kind: 'string',
    help: 'file for a line of JSON per step; scripts/bench/occupancy.ts draws it',
  },
  { name: '--disable-detokenize', kind: 'boolean', help: '', ignored: 'text is a few microseconds per step' },
]

/** The benchmark's own flags stand before those of the engine and win over them (--seed). */
function groupsOf(own: readonly Flag[]): FlagGroup[] {
  const benchmark = [...own, ...common]
  const taken = new Set(benchmark.map(({ name }) => name))
  const rest = [...engineFlags, sharedFlags, ignoredFlags].map(({ title, flags }) => ({
    title,
    flags: flags.filter(({ name }) => !taken.has(name)),
  }))
  return [{ title: 'Benchmark', flags: benchmark }, ...rest]
}

export function offlineHelp(usage: string, summary: string, own: readonly Flag[]): string {
  return formatHelp(usage, summary, groupsOf(own))
}

export type OfflineArguments = { values: Parsed['values']; engineOptions: Record<string, unknown> }

/** Without a model: the demo model. @throws UsageError naming the flag */
export function parseOffline(argv: string[], own: readonly Flag[]): OfflineArguments {
  const groups = groupsOf(own)
  const parsed = parseFlags(
    groups.flatMap(({ flags }) => flags),
    argv,
    {},
  )
  for (const warning of parsed.warnings) log(warning)
  const model = modelOf(parsed) ?? demoModel
  const names = [...engineFlags, sharedFlags].flatMap(({ flags }) => flags).map(keyOf)
  const given = Object.entries({ ...parsed.values, model }).filter(([name]) => names.includes(name))
  const { values } = parsed
  engineConfig({ ...values, model }, null) // a wrong flag is told before anything is loaded
  return { values, engineOptions: Object.fromEntries(given) }
}

export type StepRecord = { seconds: number } & EngineStats

/** Loads the model and runs; with `path` every step becomes a line there. */
export async function withEngine<T>(
  options: Record<string, unknown>,
  path: string | undefined,
  clock: Clock,
  run: (llm: LLM) => Promise<T>,
): Promise<T> {
  const file = path === undefined ? null : createWriteStream(path)
  const begun = clock.monotonic()
  const record: StepListener = (engine) => {
    const line: StepRecord = { seconds: (clock.monotonic() - begun) / 1000, ...engine.stats() }
    file?.write(`${JSON.stringify(line)}\n`)
  }
  const llm = await LLM.create({ ...options, model: String(options.model) }, file ? record : undefined)
  try {
    return await run(llm)
  } finally {
    await llm.close()
    file?.end()
    if (file) await finished(file)
  }
}
