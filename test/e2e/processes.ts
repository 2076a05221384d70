// Real processes for end-to-end tests: a Redis, gateways and engines started through the command line as a user would,
// and a client that reads server-sent events raw.
import { type ChildProcess, spawn } from 'node:child_process'
import { createServer } from 'node:net'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startRedisServer } from '../../queue/server.ts'

export const root = fileURLToPath(new URL('../../', import.meta.url))
const cli = `${root}scripts/pagestream.cjs`
export const demo = `${root}scripts/demo/model`

export type Process = { child: ChildProcess; port: number; output(): string; exited: Promise<number | null> }

/** Starts the real server the test needs, or skips it with the line that says how to get one. */
export async function redisFor(t: TestContext): Promise<string | null> {
  const redis = await startRedisServer({ path: process.env.PATH ?? '' })
  if (!redis) {
    t.skip('redis-server is not installed (apt-get install redis-server)')
    return null
  }
  t.after(() => redis.close())
  return redis.url
}

export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

export function start(t: TestContext, args: string[], port: number, env: Record<string, string> = {}): Process {
  const child = spawn(process.execPath, [cli, ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk) => (text = (text + chunk).slice(-20_000)))
  const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    await exited
  })
  return { child, port, output: () => text, exited }
}

export async function gateway(t: TestContext, redis: string, ...flags: string[]): Promise<Process> {
  const port = await freePort()
  const process = start(t, ['gateway', '--redis', redis, '--host', '127.0.0.1', '--port', `${port}`, ...flags], port)
  await until(`gateway ready:\n${process.output()}`, async () => (await get(port, '/ready')) !== null)
  return process
}

/** `port` is that of the engine's own /metrics and /health. */
export async function engine(t: TestContext, redis: string, ...flags: string[]): Promise<Process> {
  const port = await freePort()
  const args = [
    'engine',
    '--redis',
    redis,
    '--model',
    demo,
    '--served-model-name',
    'demo',
    '--metrics-port',
    `${port}`,
    '--lease-ms',
    '1000',
  ]
  const process = start(t, [...args, ...flags], port)
  await until(
    () => `engine ready:\n${process.output()}`,
    async () => (await get(port, '/ready')) !== null,
    60_000,
  )
  return process
}

export async function get(port: number, path: string): Promise<string | null> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`).catch(() => null)
  return response?.ok ? response.text() : null
}

/** Value of a metric summed over its labels. */
export async function metric(port: number, name: string): Promise<number> {
  const lines = ((await get(port, '/metrics')) ?? '')
    .split('\n')
    .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}

export async function until(
  what: string | (() => string),
  holds: () => Promise<boolean>,
  timeoutMs = 20_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await holds())) {
    if (performance.now() > deadline)
      throw new Error(`timed out waiting for ${typeof what === 'string' ? what : what()}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

export type Chunk = {
  choices: { index: number; text?: string; delta?: { content?: string }; finish_reason: string | null }[]
  usage?: { completion_tokens: number; prompt_tokens: number } | null
  error?: { code: string }
}

export type Stream = { status: number; chunks: Chunk[]; comments: string[]; text: string; done: boolean }

/** Reads a stream to its end; `onChunk` sees every chunk as it comes. */
export async function stream(
  port: number,
  path: string,
  body: Record<string, unknown>,
  onChunk?: (stream: Stream) => void,
): Promise<Stream> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ stream: true, stream_options: { include_usage: true }, ...body }),
  })
  const result: Stream = { status: response.status, chunks: [], comments: [], text: '', done: false }
  if (!response.ok) {
    result.text = await response.text()
    return result
  }
  let pending = ''
  const decoder = new TextDecoder()
  for await (const bytes of response.body!) {
    pending += decoder.decode(bytes, { stream: true })
    const lines = pending.split('\n')
    pending = lines.pop()!
    for (const line of lines) {
      if (line.startsWith(':')) result.comments.push(line)
      if (line === 'data: [DONE]') result.done = true
      else if (line.startsWith('data: ')) {
        const chunk = JSON.parse(line.slice(6)) as Chunk
        result.chunks.push(chunk)
        for (const choice of chunk.choices ?? [])
          if (choice.index === 0) result.text += choice.text ?? choice.delta?.content ?? ''
      }
      if (line) onChunk?.(result)
    }
  }
  return result
}
