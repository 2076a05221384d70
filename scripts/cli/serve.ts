// `pagestream serve [MODEL]`: gateway, queue and engine in one process; what `npm start` runs.
import type { RunningEngine } from '../../engine/main.ts'
import { systemClock } from '../../queue/clock.ts'
import { demoModel, engineConfig, engineDefaults, gatewayConfig, modelOf } from './configure.ts'
import { launchEngine } from './engine.ts'
import { parseFlags } from './flags.ts'
import { launchGateway } from './gateway.ts'
import { greeting } from './greeting.ts'
import { formatHelp } from './help.ts'
import { createLog, log } from './log.ts'
import { findQueue } from './queue.ts'
import { engineFlags, gatewayFlags, ignoredFlags, processFlags, sharedFlags } from './server-flags.ts'
import { watchSignals } from './signals.ts'

const groups = [gatewayFlags, ...engineFlags, sharedFlags, processFlags, ignoredFlags]

export const help = () =>
  formatHelp(
    'pagestream serve [MODEL] [flags]',
    'Serves one model over the OpenAI API, with gateway, queue and engine in this process. Without MODEL: the demo model.',
    groups,
    { ...engineDefaults(), ...gatewayConfig({}) },
  )

export async function run(argv: string[]): Promise<number> {
  const began = performance.now()
  const parsed = parseFlags(
    groups.flatMap((group) => group.flags),
    argv,
    process.env,
  )
  const { values, warnings } = parsed
  const model = modelOf(parsed)
  const gatewayOptions = gatewayConfig(values)
  const engineValues = model ? { ...values, model } : { servedModelName: ['demo'], ...values, model: demoModel }
  engineConfig(engineValues, null) // a wrong flag is told before anything is started
  for (const warning of warnings) log(warning)

  const signals = watchSignals(log)
  const queue = await findQueue(values.redis as string | undefined, process.env.PATH ?? '', systemClock)
  log(`queue: ${queue.description}`)
  const level = (values.logLevel as string | undefined) ?? 'warn'
  let engine: RunningEngine | null = null
  const extraMetrics = async () => (await engine?.metrics()) ?? ''
  // The port is taken first: that it is occupied should be known before a model is loaded.
  const obstacle = () => (engine ? null : 'The model is still loading.')
  const gateway = await launchGateway(gatewayOptions, queue.redis, {
    log: createLog('gateway', level),
    extraMetrics,
    obstacle,
  })
  engine = await launchEngine(engineConfig(engineValues, queue.url), queue.redis, level)
  if (!model) log('no model was given, so the demo model answers: it knows little, see scripts/demo/README.md')
  log(`ready in ${((performance.now() - began) / 1000).toFixed(1)} s`)
  signals.serving()
  process.stdout.write(greeting(gatewayOptions, gateway.port, engine.card))

  await signals.stopped
  await gateway.close()
  await engine.close()
  await queue.close()
  return 0
}
