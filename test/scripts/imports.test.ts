// The checker of the walls must see a violation, and must not see one where there is none.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cyclesOf, importsOf, violationsOf } from '../../scripts/imports.ts'

/** A file with its violations, without the file's name. */
const violations = (file: string, ...lines: string[]) =>
  violationsOf(file, lines.join('\n')).map((line) => line.replace(`${file}:`, ''))

test('every planted violation is found, with its line', () => {
  const planted: [file: string, source: string, message: string][] = [
    ['gateway/app.ts', "import { Engine } from '../engine/engine.ts'", '1: may not import engine/engine.ts'],
    ['engine/engine.ts', "import { append } from '../queue/consume.ts'", '1: may not import queue/consume.ts'],
    [
      'engine/scheduler/x.ts',
      "import { Device } from '../native/device.ts'",
      '1: may not import engine/native/device.ts',
    ],
    ['engine/scheduler/x.ts', "import { x } from '../output/stop.ts'", '1: may not import engine/output/stop.ts'],
    ['engine/native/ops.ts', "import { x } from '../engine.ts'", '1: may not import engine/engine.ts'],
    ['queue/job.ts', "import { x } from '../gateway/errors.ts'", '1: may not import gateway/errors.ts'],
    ['gateway/openai/sse.ts', "import { x } from '../prompt/card.ts'", '1: may not import gateway/prompt/card.ts'],
    ['gateway/openai/sse.ts', "import { x } from '../../queue/event.ts'", '1: may not import queue/event.ts'],
    ['gateway/app.ts', "\nimport {\n  x,\n} from '../scripts/cli.ts'", '4: may not import scripts/cli.ts'],
    ['gateway/app.ts', "export { x } from '../engine/engine.ts'", '1: may not import engine/engine.ts'],
    ['gateway/app.ts', "const x = await import('../engine/engine.ts')", '1: may not import engine/engine.ts'],
    [
      'gateway/app.ts',
      "new Worker(new URL('../engine/worker.ts', import.meta.url))",
      '1: may not import engine/worker.ts',
    ],
    ['gateway/routes/chat.ts', "import { Redis } from 'ioredis'", '1: ioredis is not for this folder'],
    ['queue/keys.ts', "import { Hono } from 'hono/tiny'", '1: hono is not for this folder'],
    ['engine/models/llama.ts', "import koffi from 'koffi'", '1: koffi is not for this folder'],
    ['gateway/app.ts', "import { S3 } from '@aws-sdk/client-s3'", '1: @aws-sdk/client-s3 is not for this folder'],
    [
      'queue/keys.ts',
      'x\nconst now = Date.now()',
      '2: Date.now belongs to an adapter; take a Clock, a seed or a config',
    ],
    ['engine/daemon.ts', 'setTimeout(f, 1)', '1: setTimeout belongs to an adapter; take a Clock, a seed or a config'],
    ['gateway/app.ts', 'process.env.X', '1: process.env belongs to an adapter; take a Clock, a seed or a config'],
    ['queue/utils.ts', '', ' a file is named after its one idea, not utils.ts'],
  ]
  for (const [file, source, message] of planted) assert.deepEqual(violations(file, source), [message], source)
})

test('what is allowed passes', () => {
  const fine: [file: string, source: string][] = [
    ['gateway/routes/chat.ts', "import { enqueue } from '../../queue/enqueue.ts'"],
    ['gateway/openai/chunks.ts', "import type { Event } from '../../queue/event.ts'"],
    ['engine/output/stop.ts', "import type { Token } from '../../queue/event.ts'"],
    ['engine/daemon.ts', "import { claim } from '../queue/consume.ts'"],
    ['engine/main.ts', 'process.env.HOME'],
    ['queue/clock.ts', 'Date.now()'],
    ['gateway/app.ts', '// Date.now() is for adapters\n/* setTimeout */ const url = "http://x"'],
    ['test/contract/x.test.ts', "import OpenAI from 'openai'\nimport '../../engine/engine.ts'"],
    ['gateway/config.ts', "import { z } from 'zod'"],
  ]
  for (const [file, source] of fine) assert.deepEqual(violations(file, source), [], source)
})

test('imports of types are told from imports of values', () => {
  const source = "import type { A } from './a.ts'\nimport { type B, c } from './b.ts'\nimport './c.ts'"
  assert.deepEqual(
    importsOf(source).map(({ target, typeOnly }) => [target, typeOnly]),
    [
      ['./a.ts', true],
      ['./b.ts', false],
      ['./c.ts', false],
    ],
  )
})

test('a cycle is shown as the way round', () => {
  const graph = new Map([
    ['a', ['b']],
    ['b', ['c']],
    ['c', ['b']],
    ['d', ['a']],
  ])
  assert.deepEqual(cyclesOf(graph), ['cycle: b -> c -> b'])
  assert.deepEqual(
    cyclesOf(
      new Map([
        ['a', ['b', 'c']],
        ['b', ['c']],
        ['c', []],
      ]),
    ),
    [],
  )
})
