// `pagestream serve` as a process, for tests that need a whole server and nothing but a server.
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { freePort, type Process, start, until } from './processes.ts'

/** Resolves when it answers; fails with its output when it ends before. */
export async function serve(t: TestContext, args: string[], env: Record<string, string> = {}): Promise<Process> {
  const server = await spawnServe(t, args, env)
  await until(
    () => `serve to be ready:\n${server.output()}`,
    async () => /^Serving /m.test(server.output()) || server.child.exitCode !== null,
    120_000,
  )
  assert.equal(server.child.exitCode, null, server.output())
  return server
}

export async function spawnServe(t: TestContext, args: string[], env: Record<string, string> = {}): Promise<Process> {
  const port = await freePort()
  return start(t, ['serve', ...args, '--redis', 'embedded', '--port', `${port}`], port, env)
}
