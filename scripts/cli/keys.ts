// `pagestream keys create`: a fresh API key. The form lets a log name a key by its public part only.
import { randomInt } from 'node:crypto'
import { UsageError } from './flags.ts'
import { formatHelp } from './help.ts'

export const help = () =>
  formatHelp('pagestream keys create', 'Prints a new random API key. Give it to a server with --api-key.', [])

export async function run(argv: string[]): Promise<number> {
  if (argv.length !== 1 || argv[0] !== 'create') throw new UsageError('say: pagestream keys create')
  process.stdout.write(`${createKey()}\n`)
  return 0
}

/** sk-ps-<12 public>-<48 secret>, base 62: 285 bits of secret. */
export function createKey(): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
  const draw = (length: number) => Array.from({ length }, () => alphabet[randomInt(alphabet.length)]).join('')
  return `sk-ps-${draw(12)}-${draw(48)}`
}
