import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { startHealth } from '../../engine/health.ts'

async function start(t: TestContext) {
  const state = { dead: null as string | null, unready: null as string | null }
  const probes = { dead: () => state.dead, unready: () => state.unready, metrics: async () => 'some_metric 1\n' }
  const health = await startHealth(probes, { host: '127.0.0.1', port: 0 })
  t.after(() => health.close())
  const get = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${health.port}${path}`)
    return [response.status, await response.text()]
  }
  return { state, get, health }
}

test('a loading engine is alive and not ready', async (t) => {
  const { state, get } = await start(t)
  state.unready = 'loading'
  assert.deepEqual(await get('/live'), [200, 'ok\n'])
  assert.deepEqual(await get('/ready'), [503, 'loading\n'])
  assert.deepEqual(await get('/health'), [503, 'loading\n'])
})

test('a hung step is death, whatever else holds', async (t) => {
  const { state, get } = await start(t)
  assert.deepEqual(await get('/health'), [200, 'ok\n'])
  state.dead = 'a step hangs'
  for (const path of ['/live', '/ready', '/health']) assert.deepEqual(await get(path), [503, 'a step hangs\n'])
})

test('metrics are served, other paths are not', async (t) => {
  const { get } = await start(t)
  assert.deepEqual(await get('/metrics?x=1'), [200, 'some_metric 1\n'])
  assert.equal((await get('/'))[0], 404)
})

test('a port in use is told with the flag that sets it', async (t) => {
  const { health } = await start(t)
  const probes = { dead: () => null, unready: () => null, metrics: async () => '' }
  await assert.rejects(
    startHealth(probes, { host: '127.0.0.1', port: health.port }),
    /^Error: --metrics-port: .* in use/,
  )
})
