// Command-line flags from one table: parsing, defaults from the environment, and errors that name the nearest flag.
// The spelling rules are vLLM's, so that its command lines work: `--x=value`, `--x/--no-x`, `--max_model_len` as
// `--max-model-len`, several values after a list flag, and human integers (32k is 32,000, 32K is 32,768).

export type FlagKind = 'string' | 'integer' | 'number' | 'boolean' | 'list' | 'json'

export type Flag = {
  /** With its dashes: `--max-model-len`. */
  name: string
  short?: string
  kind: FlagKind
  help: string
  /** Where the value goes in the result; camelCase of the name unless given. */
  key?: string
  choices?: readonly string[]
  /** Environment variables that give the value when the flag is absent, first one set. */
  env?: readonly string[]
  /** Why the flag has no effect here: it is accepted with a warning, so that known command lines run. */
  ignored?: string
}

export type Parsed = { values: Record<string, unknown>; positional: string[]; warnings: string[] }

/** A mistake of the person at the keyboard: printed as one line, exit code 2. */
export class UsageError extends Error {}

export function parseFlags(flags: readonly Flag[], argv: readonly string[], env: NodeJS.ProcessEnv): Parsed {
  const parsed: Parsed = { values: {}, positional: [], warnings: [] }
  for (const flag of flags) {
    const variable = flag.env?.find((name) => env[name])
    if (variable) parsed.values[keyOf(flag)] = readValue(flag, variable, [env[variable] as string])
  }

  const seen = new Set<Flag>()
  const rest = [...argv]
  while (rest.length > 0) {
    const argument = rest.shift() as string
    if (!argument.startsWith('-') || argument === '-') {
      parsed.positional.push(argument)
      continue
    }
    const { flag, name, negated, attached } = lookUp(flags, argument)
    if (flag.kind === 'boolean') {
      if (attached !== undefined) throw new UsageError(`${name} takes no value: write ${name} or ${negate(name)}`)
      parsed.values[keyOf(flag)] = !negated
    } else {
      const given = attached !== undefined ? [attached] : takeValues(flag, rest)
      const value = readValue(flag, name, given)
      const isMore = flag.kind === 'list' && seen.has(flag)
      parsed.values[keyOf(flag)] = isMore ? [...(parsed.values[keyOf(flag)] as string[]), ...given] : value
    }
    seen.add(flag)
    if (flag.ignored) {
      parsed.warnings.push(`${name} has no effect: ${flag.ignored}`)
      delete parsed.values[keyOf(flag)]
    }
  }
  return parsed
}

export function keyOf(flag: Flag): string {
  return flag.key ?? flag.name.slice(2).replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
}

function lookUp(flags: readonly Flag[], argument: string) {
  const equals = argument.indexOf('=')
  const typed = equals < 0 ? argument : argument.slice(0, equals)
  const attached = equals < 0 ? undefined : argument.slice(equals + 1)
  const name = typed.startsWith('--') ? typed.replaceAll('_', '-') : typed
  for (const flag of flags) {
    if (flag.name === name || flag.short === name) return { flag, name: flag.name, negated: false, attached }
    if (flag.kind === 'boolean' && negate(flag.name) === name) return { flag, name, negated: true, attached }
  }
  const names = flags.flatMap((flag) => (flag.kind === 'boolean' ? [flag.name, negate(flag.name)] : [flag.name]))
  const near = nearest(name, names)
  throw new UsageError(`unknown flag ${typed}${near ? `; did you mean ${near}?` : ''} (--help lists all)`)
}

function negate(name: string): string {
  return name.startsWith('--no-') ? `--${name.slice(5)}` : `--no-${name.slice(2)}`
}

/** A list flag takes every word up to the next flag, as argparse's nargs='+' does. */
function takeValues(flag: Flag, rest: string[]): string[] {
  const isFlag = (word: string) => /^--?[a-zA-Z]/.test(word)
  const values: string[] = []
  while (rest.length > 0 && !isFlag(rest[0] as string)) {
    values.push(rest.shift() as string)
    if (flag.kind !== 'list') break
  }
  if (values.length === 0) throw new UsageError(`${flag.name} needs a value`)
  return values
}

function readValue(flag: Flag, source: string, given: string[]): unknown {
  const text = given[0] as string
  switch (flag.kind) {
    case 'string':
      if (flag.choices && !flag.choices.includes(text)) {
        throw new UsageError(`${source} must be one of ${flag.choices.join(', ')}, not "${text}"`)
      }
      return text
    case 'list':
      return given
    case 'integer':
      return readInteger(source, text)
    case 'number': {
      const value = text === 'inf' ? Number.POSITIVE_INFINITY : Number(text)
      if (text === '' || Number.isNaN(value)) throw new UsageError(`${source} must be a number, not "${text}"`)
      return value
    }
    case 'boolean':
      return !['', '0', 'false', 'no'].includes(text.toLowerCase())
    case 'json':
      return readJson(source, text)
  }
}

const scales: Record<string, number> = {
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
}

export function readInteger(source: string, text: string): number {
  const match = /^(-?\d+(?:\.\d+)?)([kmgtKMGT])?$/.exec(text)
  const value = match ? Number(match[1]) * (match[2] ? (scales[match[2]] as number) : 1) : Number.NaN
  if (Number.isSafeInteger(value)) return value
  throw new UsageError(`${source} must be a whole number (32768, 32k = 32,000, 32K = 32,768), not "${text}"`)
}

function readJson(source: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new UsageError(`${source} must be JSON: ${(error as Error).message}`)
  }
}

/** The candidate with the fewest edits, if the two are alike at all. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const ranked = candidates.map((candidate) => ({ candidate, edits: editDistance(word, candidate) }))
  const best = ranked.sort((a, b) => a.edits - b.edits)[0]
  return best && best.edits <= Math.max(2, word.length / 3) ? best.candidate : undefined
}

/** Levenshtein, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitute = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(substitute, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[b.length] as number
}
