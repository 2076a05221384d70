// The guard installs when it must, only then, and says so when it cannot. npm is a double that notes its calls.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const guard = fileURLToPath(new URL('../../scripts/check-node.cjs', import.meta.url))
const npmDouble = `
const fs = require('node:fs')
fs.appendFileSync('calls', process.argv.slice(2).join(' ') + '\\n')
if (process.env.NPM_FAILS) process.exit(1)
fs.mkdirSync('node_modules', { recursive: true })
const { packages } = JSON.parse(fs.readFileSync('package-lock.json'))
delete packages['node_modules/other-platform']
fs.writeFileSync('node_modules/.package-lock.json', JSON.stringify({ packages }))
`

function checkout(t: TestContext) {
  const root = mkdtempSync(join(tmpdir(), 'pagestream-guard-'))
  t.after(() => rmSync(root, { recursive: true }))
  mkdirSync(join(root, 'scripts'))
  copyFileSync(guard, join(root, 'scripts', 'check-node.cjs'))
  writeFileSync(join(root, 'scripts', 'cli.ts'), '')
  writeFileSync(join(root, 'npm.cjs'), npmDouble)
  const lock = (version: string) =>
    writeFileSync(
      join(root, 'package-lock.json'),
      JSON.stringify({
        packages: {
          '': { name: 'pagestream' },
          'node_modules/zod': { version },
          'node_modules/other-platform': { version: '1.0.0', optional: true },
        },
      }),
    )
  const run = (env: Record<string, string> = {}) =>
    spawnSync(process.execPath, [join(root, 'scripts', 'check-node.cjs')], {
      env: { ...process.env, npm_execpath: join(root, 'npm.cjs'), ...env },
      encoding: 'utf8',
    })
  const calls = () => {
    const file = join(root, 'calls')
    return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').length : 0
  }
  return { lock, run, calls }
}

test('the dependencies are installed once, and again when the lock file asks for others', (t) => {
  const { lock, run, calls } = checkout(t)
  lock('4.0.0')
  assert.equal(run().status, 0)
  assert.equal(calls(), 1)
  assert.equal(run().status, 0)
  assert.equal(calls(), 1, 'nothing has changed')
  lock('4.1.0')
  assert.equal(run().status, 0)
  assert.equal(calls(), 2)
})

test('an installation that fails ends with one line that says what to do', (t) => {
  const { lock, run } = checkout(t)
  lock('4.0.0')
  const { status, stderr } = run({ NPM_FAILS: '1' })
  assert.equal(status, 1)
  assert.match(
    stderr,
    /^pagestream: cannot install the dependencies: npm ci ended with code 1; run "npm ci" to see why$/m,
  )
})
