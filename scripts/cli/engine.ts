// `pagestream engine MODEL`: pulls jobs for one model from Redis; start more to serve more.
import type { EngineConfig } from '../../engine/config.ts'
import { type RunningEngine, startEngine } from '../../engine/main.ts'
import { systemClock } from '../../queue/clock.ts'
import type { Redis } from '../../queue/redis.ts'
import { buildKernels } from '../build.ts'
import { engineConfig, engineDefaults, modelOf } from './configure.ts'
import { parseFlags, UsageError } from './flags.ts'
import { formatHelp } from './help.ts'
import { createLog, loadingProgress, log } from './log.ts'
import { connectQueue } from './queue.ts'
import { engineFlags, ignoredFlags, processFlags, sharedFlags } from './server-flags.ts'
import { watchSignals } from './signals.ts'

const groups = [...engineFlags, sharedFlags, processFlags, ignoredFlags]

export const help = () =>
  formatHelp(
    'pagestream engine MODEL --redis URL [flags]',
    'Computes the answers of one model for all gateways.',
    groups,
    engineDefaults(),
  )

export async function run(argv: string[]): Promise<number> {
  const parsed = parseFlags(
    groups.flatMap((group) => group.flags),
    argv,
    process.env,
  )
  const model = modelOf(parsed)
  if (!model) throw new UsageError('which model? pagestream engine MODEL: a folder, s3://bucket/prefix or org/name')
  for (const warning of parsed.warnings) log(warning)
  const url = parsed.values.redis as string | undefined
  const config = engineConfig({ ...parsed.values, model }, url ?? null)
  const signals = watchSignals(log)
  const queue = await connectQueue(url)
  const engine = await launchEngine(config, queue.redis, (parsed.values.logLevel as string | undefined) ?? 'info')
  signals.serving()
  log(`engine serves ${engine.card.name}`)

  await signals.stopped
  await engine.close()
  await queue.close()
  return 0
}

/** Builds the kernels if need be, loads the model, and resolves when the engine takes work. */
export async function launchEngine(config: EngineConfig, redis: Redis, level: string): Promise<RunningEngine> {
  await buildKernels({ log })
  const name = config.servedModelName[0] ?? config.model
  const options = { log: createLog('engine', level), onProgress: loadingProgress(name) }
  const engine = await startEngine(config, redis, systemClock, options)
  await engine.ready
  return engine
}
