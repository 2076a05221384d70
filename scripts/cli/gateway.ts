// `pagestream gateway`: HTTP in, jobs to Redis; as many of them as you like, behind any load balancer.
import type { GatewayConfig } from '../../gateway/config.ts'
import { type GatewayServer, type StartOptions, startGateway } from '../../gateway/main.ts'
import { systemClock } from '../../queue/clock.ts'
import type { Redis } from '../../queue/redis.ts'
import { gatewayConfig } from './configure.ts'
import { parseFlags, UsageError } from './flags.ts'
import { formatHelp } from './help.ts'
import { createLog, log } from './log.ts'
import { connectQueue } from './queue.ts'
import { gatewayFlags, processFlags, sharedFlags } from './server-flags.ts'
import { watchSignals } from './signals.ts'

const groups = [gatewayFlags, sharedFlags, processFlags]

export const help = () =>
  formatHelp(
    'pagestream gateway --redis URL [flags]',
    'Serves the models whose engines meet it in Redis.',
    groups,
    gatewayConfig({}),
  )

export async function run(argv: string[]): Promise<number> {
  const { values, positional, warnings } = parseFlags(
    groups.flatMap((group) => group.flags),
    argv,
    process.env,
  )
  if (positional[0]) throw new UsageError(`a gateway takes no model ("${positional[0]}"): it learns them from Redis`)
  for (const warning of warnings) log(warning)
  const config = gatewayConfig(values)
  const signals = watchSignals(log)
  const queue = await connectQueue(values.redis as string | undefined)
  const gateway = await launchGateway(config, queue.redis, {
    log: createLog('gateway', (values.logLevel as string | undefined) ?? 'info'),
  })
  signals.serving()
  log(`gateway on http://${config.host}:${gateway.port}`)

  await signals.stopped
  await gateway.close()
  await queue.close()
  return 0
}

export async function launchGateway(
  config: GatewayConfig,
  redis: Redis,
  options: StartOptions,
): Promise<GatewayServer> {
  const gateway = await startGateway(config, redis, systemClock, options)
  const isLocal = ['127.0.0.1', '::1', 'localhost'].includes(config.host)
  if (!isLocal && config.apiKeys.length === 0) {
    log(`${config.host} can be reached from other machines, and any key is accepted; --api-key KEY changes that`)
  }
  return gateway
}
