// Prints the help of a command from the same table that parses its flags.
import { type Flag, keyOf } from './flags.ts'
import type { FlagGroup } from './server-flags.ts'

const width = 100
const indent = 34

/** `defaults`: what a flag's field holds when nobody sets it, by the flag's key. */
export function formatHelp(
  usage: string,
  summary: string,
  groups: readonly FlagGroup[],
  defaults: Record<string, unknown> = {},
): string {
  const format = (flag: Flag) => formatFlag(flag, formatDefault(defaults[keyOf(flag)]))
  const sections = groups.map(({ title, flags }) => `${title}:\n${flags.map(format).join('\n')}`)
  return [`Usage: ${usage}`, summary, ...sections].join('\n\n')
}

function formatDefault(value: unknown): string {
  if (typeof value === 'boolean') return value ? ' (default: on)' : ''
  const isShown = typeof value === 'number' || (typeof value === 'string' && value !== '')
  return isShown ? ` (default: ${value})` : ''
}

function formatFlag(flag: Flag, preset: string): string {
  const name = flag.kind === 'boolean' ? flag.name.replace('--', '--[no-]') : `${flag.name} ${placeholder(flag)}`
  const left = `  ${flag.short ? `${flag.short}, ` : ''}${name}`
  const environment = flag.env ? ` [${flag.env.join(', ')}]` : ''
  const lines = wrap(`${flag.ignored ?? flag.help + preset}${environment}`, width - indent)
  const head = left.length < indent ? left.padEnd(indent) + lines.shift() : left
  return [head, ...lines.map((line) => ' '.repeat(indent) + line)].join('\n')
}

function placeholder(flag: Flag): string {
  if (flag.choices) return flag.choices.join('|')
  return { string: 'TEXT', integer: 'N', number: 'X', list: 'TEXT…', json: 'JSON', boolean: '' }[flag.kind]
}

function wrap(text: string, columns: number): string[] {
  const lines = ['']
  for (const word of text.split(' ')) {
    const last = lines.at(-1) as string
    if (last && last.length + 1 + word.length > columns) lines.push(word)
    else lines[lines.length - 1] = last ? `${last} ${word}` : word
  }
  return lines
}
