// The corpus of hostile requests with their expected answers, where it lies beside the project.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { serve } from './harness.ts'

const program = new URL('../../../shared/data/badinputs/run.mjs', import.meta.url)

/** Need the tenant store: keys with limits and quotas. */
const LATER = ['model_not_allowed_for_key', 'quota_exhausted']

test('208 hostile requests get their answers', { skip: !existsSync(program) && 'no ../shared' }, async () => {
  const served = await serve({ apiKeys: ['sk-test-key'] })
  const env = { ...process.env, BASE: served.url, KEY: 'sk-test-key', MODEL: 'demo' }
  const output = await new Promise<string>((resolve) => {
    execFile(process.execPath, [fileURLToPath(program)], { env }, (_, stdout) => resolve(stdout))
  })
  await served.close()
  const [summary, ...failures] = output.trim().split('\n')
  const { cases, canary } = JSON.parse(summary!) as { cases: number; canary: number }
  assert.equal(cases, 208)
  assert.equal(canary, 200)
  assert.deepEqual(failures.map((line) => line.split(' ')[1]).sort(), LATER, output)
})
