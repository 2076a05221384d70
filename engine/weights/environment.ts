// Where the environment variables of the Hugging Face hub and of AWS say that models come from and are kept. Called by
// whoever reads the environment (engine/config.ts, scripts); flags go over what is found here. The AWS SDK finds
// credentials by itself.
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { SourceOptions } from './source.ts'

type Environment = Record<string, string | undefined>

export function sourceEnvironment(env: Environment): Omit<SourceOptions, 'clock' | 'random'> {
  const caches = env.XDG_CACHE_HOME || join(homedir(), '.cache')
  const hfHome = env.HF_HOME || join(caches, 'huggingface')
  return {
    hubCache: env.HF_HUB_CACHE || join(hfHome, 'hub'),
    s3Cache: join(caches, 'pagestream'),
    hfToken: env.HF_TOKEN || storedToken(env.HF_TOKEN_PATH || join(hfHome, 'token')),
    hfEndpoint: env.HF_ENDPOINT || undefined,
    offline: /^(1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE ?? ''),
    proxies: {
      http: env.http_proxy ?? env.HTTP_PROXY,
      https: env.https_proxy ?? env.HTTPS_PROXY,
      none: env.no_proxy ?? env.NO_PROXY,
    },
    s3: {
      endpoint: env.AWS_ENDPOINT_URL_S3 || env.AWS_ENDPOINT_URL || undefined,
      region: env.AWS_REGION || env.AWS_DEFAULT_REGION || undefined,
    },
  }
}

/** What `hf auth login` has left. */
function storedToken(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim() || undefined
  } catch {
    return undefined
  }
}
