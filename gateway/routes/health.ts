// What probes, scrapers and load balancers ask. /live: the process answers. /health: Redis answers too, and nothing in
// this process is still loading (as with vLLM, so that probes written for it hold). /ready: and it is not draining.
import { readFileSync } from 'node:fs'
import type { Context } from 'hono'
import { poolState } from '../../queue/models.ts'
import { within } from '../breaker.ts'
import type { Gateway, RequestEnv } from '../context.ts'
import { queueUnavailable, unavailable } from '../errors.ts'
import { setPools } from '../metrics.ts'

const packageJson = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

export function version(c: Context<RequestEnv>): Response {
  return c.json({ version: packageJson.version })
}

export function live(c: Context<RequestEnv>): Response {
  return c.body(null, 200)
}

export async function health(c: Context<RequestEnv>, gateway: Gateway): Promise<Response> {
  await checkHealth(gateway)
  return c.body(null, 200)
}

export async function ready(c: Context<RequestEnv>, gateway: Gateway): Promise<Response> {
  if (gateway.draining) throw unavailable('shutting_down', 'This gateway is shutting down.', 1000)
  await checkHealth(gateway)
  return c.body(null, 200)
}

export async function metrics(c: Context<RequestEnv>, gateway: Gateway): Promise<Response> {
  const { redis, cards, metrics, extraMetrics } = gateway
  // A scrape must answer while Redis does not: the process's own figures are worth the most then.
  const list = await cards.list().catch(() => [])
  const states = await Promise.allSettled(
    list.map(async ({ name }) => ({ model: name, state: await poolState(redis, name) })),
  )
  setPools(
    metrics,
    states.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : [])),
  )
  metrics.open.set(gateway.open.size)
  const text = `${await metrics.registry.metrics()}${await extraMetrics()}`
  return c.body(text, 200, { 'content-type': metrics.registry.contentType })
}

async function checkHealth({ redis, clock, obstacle, breaker }: Gateway): Promise<void> {
  const reason = obstacle()
  if (reason !== null) throw unavailable('not_ready', reason, 1000)
  breaker.check()
  await within(clock, redis.command('PING')).catch((error) => {
    throw queueUnavailable(error)
  })
}
