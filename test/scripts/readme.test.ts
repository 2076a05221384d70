// The README says only what is there: files, flags, commands.
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { engineFlags, gatewayFlags, ignoredFlags, processFlags, sharedFlags } from '../../scripts/cli/server-flags.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const readme = readFileSync(`${root}/README.md`, 'utf8')

test('every file and folder that the README names exists', () => {
  const linked = [...readme.matchAll(/\]\(([^)]+)\)/g)].map((match) => match[1] as string)
  const named = [...readme.matchAll(/`((?:gateway|engine|queue|scripts|test|infra)\/[\w./-]*)`/g)].map(
    (match) => match[1] as string,
  )
  assert.ok(linked.length > 3 && named.length > 15)
  for (const path of [...linked, ...named]) {
    assert.ok(existsSync(`${root}/${path}`), `README names ${path}`)
  }
})

test('every flag and npm script that the README names exists', () => {
  const groups = [gatewayFlags, ...engineFlags, sharedFlags, processFlags, ignoredFlags]
  const known = new Set([...groups.flatMap(({ flags }) => flags.map(({ name }) => name)), '--help'])
  const named = [...readme.matchAll(/(?<![\w-])--[a-z][\w-]+/g)].map(([flag]) => flag)
  for (const flag of named) assert.ok(known.has(flag), `README names ${flag}`)
  const { scripts } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8'))
  for (const [, name] of readme.matchAll(/npm run ([\w:]+)/g))
    assert.ok(name! in scripts, `README names npm run ${name}`)
})
