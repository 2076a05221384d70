// `npm run simulate -- --seeds N --from S [--ablate NAME]`: runs seeds of the deterministic simulation and prints what was
// violated, with the command that replays it. With an ablation it stops at the first seed that catches it: there a
// violation is what is wanted. Exit code 1 when a violation was found, or an ablation was not caught.
import { parseArgs } from 'node:util'
import { ablations } from './simulate/ablations.ts'
import { faults } from './simulate/faults.ts'
import { type Outcome, type SimulationOptions, simulate } from './simulate/world.ts'

const usage = `Usage: npm run simulate -- [--seeds N] [--from S] [--ablate NAME] [--faults NAME,NAME] [--trace]

  --seeds    how many seeds (100)
  --from     the first seed (1)
  --ablate   leaves a part of the protocol out; stops at the first seed that shows it:
${Object.entries(ablations)
  .map(([name, { what }]) => `               ${name.padEnd(18)} ${what}`)
  .join('\n')}
  --faults   draws from these only: ${Object.keys(faults).join(', ')}
  --trace    prints what happens`

type Options = SimulationOptions & { seeds: number; from: number; name: string | null; command: string }

export function parseOptions(argv: string[]): Options {
  const { values } = parseArgs({
    args: argv,
    options: {
      seeds: { type: 'string', default: '100' },
      from: { type: 'string', default: '1' },
      ablate: { type: 'string' },
      faults: { type: 'string' },
      trace: { type: 'boolean', default: false },
    },
  })
  const only = values.faults?.split(',')
  const unknown = only?.find((name) => !(name in faults))
  if (unknown) throw new Error(`--faults: there is no ${unknown}`)
  const ablation = values.ablate === undefined ? undefined : ablations[values.ablate]
  if (values.ablate !== undefined && !ablation) throw new Error(`--ablate: there is no ${values.ablate}`)
  return {
    seeds: whole('--seeds', values.seeds),
    from: whole('--from', values.from),
    name: values.ablate ?? null,
    command: `${values.faults ? ` --faults ${values.faults}` : ''}${values.ablate ? ` --ablate ${values.ablate}` : ''}`,
    ...(ablation && { ablation }),
    ...(only && { only }),
    ...(values.trace && { trace: console.log }),
  }
}

function whole(flag: string, text: string): number {
  const number = Number(text)
  if (!Number.isInteger(number) || number < 1) throw new Error(`${flag}: ${text}; must be a whole number above 0`)
  return number
}

async function main(argv: string[]): Promise<number> {
  const options = parseOptions(argv)
  const { seeds, from, name } = options
  const begun = performance.now()
  const sums = { seeds: 0, violating: 0, requests: 0, tokens: 0, errors: new Map<string, number>() }
  let seed = from
  // A promise that nobody awaits failed: in which seed is all that can be said.
  process.once('unhandledRejection', (error) => {
    console.error(error)
    console.error(`    in seed ${seed}; ${replay(seed, options.command)}`)
    process.exit(1)
  })
  for (; seed < from + seeds; seed++) {
    const outcome = await simulate(seed, options)
    sums.seeds++
    sums.requests += outcome.requests
    sums.tokens += outcome.tokens
    for (const error of outcome.errors) {
      const kind = error.slice(error.indexOf(' ') + 1)
      sums.errors.set(kind, (sums.errors.get(kind) ?? 0) + 1)
    }
    if (outcome.violations.length === 0) continue
    sums.violating++
    report(outcome, options.command)
    if (name) {
      console.log(`ablation ${name}: caught by seed ${seed}, after ${sums.seeds} seeds`)
      return 0
    }
  }
  const rate = (sums.seeds / ((performance.now() - begun) / 1000)).toFixed(1)
  const { user, system } = process.cpuUsage()
  const perCpu = (sums.seeds / ((user + system) / 1e6)).toFixed(1)
  const errors = [...sums.errors.values()].reduce((sum, count) => sum + count, 0)
  console.log(
    `${sums.seeds} seeds: ${sums.violating} with violations; ${sums.requests} requests, ${sums.tokens} tokens, ` +
      `${errors} explicit errors (${((100 * errors) / sums.requests).toFixed(3)} %); ${rate} seeds/s, ${perCpu} per second of CPU`,
  )
  for (const [kind, count] of sums.errors) console.log(`${String(count).padStart(6)}  ${kind}`)
  if (name) console.log(`ablation ${name}: not caught`)
  return sums.violating > 0 || name ? 1 : 0
}

function replay(seed: number, command: string): string {
  return `replay: npm run simulate -- --seeds 1 --from ${seed}${command} --trace`
}

function report({ seed, faults, isDeterministic, violations }: Outcome, command: string): void {
  console.log(`seed ${seed} (${isDeterministic ? 'deterministic' : 'not deterministic'}; ${faults.join(', ')})`)
  for (const violation of violations.slice(0, 10)) console.log(`    ${violation}`)
  if (violations.length > 10) console.log(`    and ${violations.length - 10} more`)
  console.log(`    ${replay(seed, command)}`)
}

if (import.meta.main) {
  main(process.argv.slice(2)).then(
    (code) => {
      process.exitCode = code
    },
    (error: Error) => {
      console.error(`${error.message}\n\n${usage}`)
      process.exitCode = 2
    },
  )
}
