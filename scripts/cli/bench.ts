// `pagestream bench serve`: the benchmark client of scripts/bench/.
import { systemClock } from '../../queue/clock.ts'
import { help as benchHelp } from '../bench/options.ts'
import { benchServe } from '../bench/serve.ts'
import { UsageError } from './flags.ts'

export const help = benchHelp

export async function run([what, ...argv]: string[]): Promise<number> {
  if (what !== 'serve') throw new UsageError('say: pagestream bench serve [flags]')
  return benchServe(argv, systemClock)
}
