// Parsed flags -> the configuration objects of gateway and engine. The zod schemas there own defaults and checks; here
// a refused field is named by its flag.
import { fileURLToPath } from 'node:url'
import { type EngineConfig, type EngineOptions, parseEngineConfig } from '../../engine/config.ts'
import { GatewayConfig } from '../../gateway/config.ts'
import { type Flag, keyOf, type Parsed, UsageError } from './flags.ts'
import { engineFlags, gatewayFlags, sharedFlags } from './server-flags.ts'

export const demoModel = fileURLToPath(new URL('../demo/model', import.meta.url))

export function gatewayConfig(values: Parsed['values']): GatewayConfig {
  const flags = [gatewayFlags, sharedFlags].flatMap((group) => group.flags)
  const result = GatewayConfig.safeParse(pick(values, flags))
  if (result.success) return Object.freeze(result.data)
  const lines = result.error.issues.map((issue) => {
    const flag = flags.find((candidate) => keyOf(candidate) === issue.path[0])
    return `${flag?.name ?? issue.path.join('.')}: ${issue.message}`
  })
  throw new UsageError(lines.join('\n'))
}

/** `redisUrl` is null when the queue is embedded in this process. */
export function engineConfig(values: Parsed['values'], redisUrl: string | null): EngineConfig {
  const flags = [...engineFlags, sharedFlags].flatMap((group) => group.flags)
  try {
    return parseEngineConfig({ ...(pick(values, flags) as EngineOptions), redisUrl })
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/** For the help. */
export function engineDefaults(): Record<string, unknown> {
  const { model: _needed, ...defaults } = engineConfig({ model: demoModel }, null)
  return defaults
}

/** The model may stand without its flag, as in `vllm serve MODEL`. */
export function modelOf({ values, positional }: Parsed): string | undefined {
  if (positional.length > 1) throw new UsageError(`one model, please; "${positional[1]}" is too much`)
  const named = values.model as string | undefined
  if (named !== undefined && positional[0] !== undefined && named !== positional[0]) {
    throw new UsageError(`two models given: ${positional[0]} and --model ${named}`)
  }
  return named ?? positional[0]
}

/** The values these flags own; a key `s3.endpoint` becomes a field of `s3`. */
function pick(values: Parsed['values'], flags: readonly Flag[]): Record<string, unknown> {
  const config: Record<string, unknown> = {}
  for (const key of flags.map(keyOf)) {
    if (values[key] === undefined) continue
    const [outer, inner] = key.split('.') as [string, string?]
    config[outer] = inner ? { ...(config[outer] as object), [inner]: values[key] } : values[key]
  }
  return config
}
