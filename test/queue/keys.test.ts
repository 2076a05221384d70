import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { compileLua } from '../../queue/embedded/lua-compiler.ts'
import { runScript } from '../../queue/embedded/lua-redis.ts'
import * as keys from '../../queue/keys.ts'

const lua = readFileSync(new URL('../../queue/lua/include/keys.lua', import.meta.url), 'utf8')

test('scripts build the same names as keys.ts', () => {
  const model = 'org/a model {x}'
  const names: [expression: string, name: string][] = [
    ['pool', keys.poolKey(model)],
    ["jobKey('id')", keys.jobKey(model, 'id')],
    ["journalKey('id', 3)", keys.journalKey(model, 'id', 3)],
    ["laneKey('10:rev:t:acme')", keys.laneKey(model, '10:rev:t:acme')],
    ["lanesKey('rev')", keys.lanesKey(model, 'rev')],
    ['waiting', keys.waitingKey(model)],
    ['deadlines', keys.deadlinesKey(model)],
    ['engines', keys.enginesKey(model)],
    ["engineKey('e')", keys.engineKey(model, 'e')],
    ["heldKey('e')", keys.heldKey(model, 'e')],
    ['bell', keys.bellChannel(model)],
    ["gatewayChannel('g')", keys.gatewayChannel('g')],
    ["engineChannel('e')", keys.engineChannel('e')],
  ]
  const script = compileLua(`${lua}\nreturn {${names.map(([expression]) => expression).join(', ')}}`)
  const built = runScript(script, [keys.poolKey(model)], [], () => null)
  assert.deepEqual(
    built,
    names.map(([, name]) => name),
  )
})

test('no name of a model can leave its hash tag or take the place of another', () => {
  const names = ['m', 'm/x', 'm x', 'm}', '{m', 'm%20x', 'm:r', 'é', '\ud800', '']
  const pools = names.map((name) => keys.poolKey(name))
  for (const pool of pools) assert.match(pool, /^\{q:[^{}\s/:]*\}$/)
  assert.equal(new Set(pools).size, names.length)
})
