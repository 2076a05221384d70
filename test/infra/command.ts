// What a container runs: the ENTRYPOINT of its image with the manifest's arguments, read as the CLI would read it.
import { readFileSync } from 'node:fs'
import type { EngineConfig } from '../../engine/config.ts'
import type { GatewayConfig } from '../../gateway/config.ts'
import { engineConfig, gatewayConfig, modelOf } from '../../scripts/cli/configure.ts'
import { parseFlags } from '../../scripts/cli/flags.ts'
import { engineFlags, gatewayFlags, processFlags, sharedFlags } from '../../scripts/cli/server-flags.ts'
import { root } from '../e2e/processes.ts'
import { readDockerfile } from './dockerfile.ts'

export const images = {
  gateway: readDockerfile('infra/gateway.Dockerfile'),
  engine: readDockerfile('infra/engine.Dockerfile'),
}

type Environment = Record<string, string>

/** @throws UsageError as the command would end with */
export function readGateway(args: readonly string[], env: Environment): { redis: unknown; config: GatewayConfig } {
  const { values, positional, warnings } = read('gateway', [gatewayFlags, sharedFlags, processFlags], args, env)
  if (positional.length + warnings.length > 0) throw new Error(`a gateway takes no ${[...positional, ...warnings]}`)
  return { redis: values.redis, config: gatewayConfig(values) }
}

export function readEngine(args: readonly string[], env: Environment): { redis: unknown; config: EngineConfig } {
  const parsed = read('engine', [...engineFlags, sharedFlags, processFlags], args, env)
  if (parsed.warnings.length > 0) throw new Error(parsed.warnings.join('\n'))
  const redis = parsed.values.redis as string
  return { redis, config: engineConfig({ ...parsed.values, model: modelOf(parsed) }, redis) }
}

function read(
  command: keyof typeof images,
  groups: readonly (typeof processFlags)[],
  args: readonly string[],
  env: Environment,
) {
  const { entrypoint } = images[command]
  const script = entrypoint.indexOf('scripts/cli.ts')
  const [name, ...fixed] = entrypoint.slice(script + 1)
  if (script < 0 || name !== command) throw new Error(`the image must start ${command}, not ${entrypoint.join(' ')}`)
  return parseFlags(
    groups.flatMap(({ flags }) => flags),
    [...fixed, ...args],
    env,
  )
}

/** Every environment variable that the two programs, or the SDK that fetches models, ask for. */
export const knownVariables = new Set(
  ['scripts/cli/server-flags.ts', 'engine/weights/environment.ts'].flatMap((file) => {
    const source = readFileSync(root + file, 'utf8')
    return [...source.matchAll(/'(PAGESTREAM_\w+|REDIS_URL)'|\benv\.(\w+)|\b((?:AWS|HF)_[A-Z_]+)\b/g)].map(
      ([, flag, read, told]) => (flag ?? read ?? told) as string,
    )
  }),
)
