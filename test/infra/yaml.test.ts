// The reader of the manifests refuses what other readers would take for something else.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseYaml } from './yaml.ts'

test('maps, lists and scalars are read as every YAML reader reads them', () => {
  const text = `# a comment
a: 1
b: 'it''s 2'
c:
  - x
  - name: z
    list: [p, '3', true]
  - --flag
d: {}
e: redis://host:6379
f:
---
g: 0.1.0
`
  const first = {
    a: 1,
    b: "it's 2",
    c: ['x', { name: 'z', list: ['p', '3', true] }, '--flag'],
    d: {},
    e: 'redis://host:6379',
    f: null,
  }
  assert.deepEqual(parseYaml(text), [first, { g: '0.1.0' }])
})

test('what is ambiguous or misplaced is refused with its line', () => {
  for (const text of [
    'a: yes',
    'a: 22:22',
    'a: 1.5',
    'a: 010',
    'a: &x',
    'a: "x"',
    'a: b: c',
    'a: b # c',
    'a: ~',
    'a: |',
  ]) {
    assert.throws(() => parseYaml(`ok: x\n${text}`), /^Error: line 2: write '.+' in single quotes$/, text)
  }
  assert.throws(() => parseYaml('a: x\na: y'), /line 2: a is there twice/)
  assert.throws(() => parseYaml('a:\n   - x'), /line 2: the indentation fits nothing above/)
  assert.throws(() => parseYaml('a:\n\t- x'), /line 2/)
  assert.throws(() => parseYaml('a: x\n  b: y'), /line 2/)
  assert.throws(() => parseYaml('a:\n  - x\n  b: y'), /line 3: a list goes on with/)
})
