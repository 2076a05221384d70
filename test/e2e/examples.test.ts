// The examples run as they stand in the repository.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { root } from './processes.ts'

const run = promisify(execFile)

test('ten users with one document: nearly all of its tokens come from the prefix cache', {
  timeout: 120_000,
}, async () => {
  const { stdout } = await run(process.execPath, [`${root}scripts/examples/rag.ts`], { timeout: 100_000 })
  const rows = [...stdout.matchAll(/^ +\d+ +(\d+) +(\d+)$/gm)].map(([, prompt, cached]) => [
    Number(prompt),
    Number(cached),
  ])
  assert.equal(rows.length, 10, stdout)
  const isCached = rows.filter(([prompt, cached]) => cached! > 0.8 * prompt!)
  assert.ok(isCached.length >= 8, `each of two engines computes the document at most once:\n${stdout}`)
})

test('the offline batch prints three texts', { timeout: 120_000 }, async () => {
  const { stdout } = await run(process.execPath, [`${root}scripts/examples/offline.ts`], { timeout: 100_000 })
  assert.equal([...stdout.matchAll(/ -> \S/g)].length, 3, stdout)
})
