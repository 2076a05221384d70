import assert from 'node:assert/strict'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type OpenOptions, openSource } from '../../../engine/weights/open.ts'
import { systemClock } from '../../../queue/clock.ts'
import { gitHash, type HubDouble, sha256, startHub } from '../../doubles/hub.ts'
import { assertHolds, blobs, type Files, modelFiles, quick, temporaryFolder, unfinished } from './fixture.ts'

const model = 'org/tiny'
const folder = 'models--org--tiny'

async function start(
  t: TestContext,
  files: Files,
  options: Partial<Parameters<typeof startHub>[0]> = {},
): Promise<{ hub: HubDouble; downloadDir: string; options: OpenOptions }> {
  const hub = await startHub({ repository: model, files, ...options })
  t.after(() => hub.close())
  const downloadDir = await temporaryFolder(t)
  const base = { clock: systemClock, random: () => 0.5, network: quick, hfEndpoint: hub.endpoint, downloadDir }
  return { hub, downloadDir, options: base }
}

test('a repository is brought to the cache in the layout of huggingface_hub and read from there', async (t) => {
  const files = modelFiles()
  const { hub, downloadDir, options } = await start(t, files)
  const source = await openSource(model, options)
  await assertHolds(source, files)
  assert.equal(source.name, join(downloadDir, folder, 'snapshots', hub.commit))
  await source.close()
  const held = await blobs(downloadDir, folder)
  const hashes = Object.entries(files).map(([name, file]) =>
    name === 'model.safetensors' ? sha256(file) : gitHash(file),
  )
  assert.deepEqual(Object.keys(held).sort(), hashes.sort())
  assert.deepEqual(await unfinished(downloadDir), [])
})

test('the second start asks the hub for the commit and the configuration only', async (t) => {
  const files = modelFiles()
  const { hub, options } = await start(t, files)
  await (await openSource(model, options)).close()
  hub.log.length = 0
  const source = await openSource(model, options)
  await assertHolds(source, files)
  await source.close()
  assert.deepEqual(hub.log, [
    `hub GET /api/models/${model}/revision/main?blobs=true`,
    `hub GET /${model}/resolve/${hub.commit}/config.json`,
  ])
})

test('a cache that Python has filled is used as it is', async (t) => {
  const files = modelFiles()
  const { hub, downloadDir, options } = await start(t, files)
  const repository = join(downloadDir, folder)
  const snapshot = join(repository, 'snapshots', hub.commit)
  await mkdir(join(repository, 'blobs'), { recursive: true })
  await mkdir(join(repository, 'refs'), { recursive: true })
  await mkdir(snapshot, { recursive: true })
  await writeFile(join(repository, 'refs', 'main'), hub.commit)
  for (const [name, file] of Object.entries(files)) {
    const hash = name.endsWith('.safetensors') ? sha256(file) : gitHash(file)
    await writeFile(join(repository, 'blobs', hash), file)
    await symlink(`../../blobs/${hash}`, join(snapshot, name))
  }
  for (const offline of [false, true]) {
    const source = await openSource(model, { ...options, offline })
    await assertHolds(source, files)
    await source.close()
  }
  assert.equal(hub.log.length, 2)
})

test('the token goes to the hub and never to the host that a file is redirected to', async (t) => {
  const files = modelFiles()
  const { hub, options } = await start(t, files, { token: 'hf_secret' })
  const source = await openSource(model, { ...options, hfToken: 'hf_secret' })
  await assertHolds(source, files)
  await source.close()
  assert.ok(hub.log.some((line) => line.startsWith('storage GET /model.safetensors')))
  assert.equal(hub.tokensLeaked, 0)
})

test('a mirror that lists names only is asked for sizes and hashes by HEAD', async (t) => {
  const files = modelFiles()
  const { hub, options } = await start(t, files, { blobs: false })
  const source = await openSource(model, options)
  await assertHolds(source, files)
  await source.close()
  assert.equal(hub.log.filter((line) => line.startsWith('hub HEAD')).length, 4)
})

test('a repository that was renamed is found under its old name', async (t) => {
  const files = modelFiles()
  const { hub, options } = await start(t, files, { formerly: 'oldorg/tiny', token: 'hf_secret' })
  const source = await openSource('oldorg/tiny', { ...options, hfToken: 'hf_secret' })
  await assertHolds(source, files)
  await source.close()
  assert.equal(hub.tokensLeaked, 0)
})

test('without a cache the repository is read into memory', async (t) => {
  const files = modelFiles()
  const { downloadDir, options } = await start(t, files)
  const source = await openSource(model, { ...options, cache: false })
  await assertHolds(source, files)
  await source.close()
  assert.deepEqual(await blobs(downloadDir, folder), {})
})

test('unknown, private and gated repositories and unknown revisions are named with what to do', async (t) => {
  const open = await start(t, modelFiles())
  const closed = await start(t, modelFiles(), { token: 'hf_right' })
  const gated = await start(t, modelFiles(), { gated: true })
  const cases: [string, OpenOptions, string, RegExp][] = [
    [
      'org/none',
      open.options,
      'not_found',
      /^org\/none: not found at http:.* \(404\); check the name, or set HF_TOKEN if it is private$/,
    ],
    [
      model,
      { ...open.options, revision: 'v9' },
      'not_found',
      /^org\/tiny: there is no revision "v9"; check --revision$/,
    ],
    [
      model,
      closed.options,
      'denied',
      /^org\/tiny: not found at .* \(401\); check the name, or set HF_TOKEN if it is private$/,
    ],
    [
      model,
      { ...closed.options, hfToken: 'hf_wrong' },
      'denied',
      /\(401\); check the name and that HF_TOKEN may read it$/,
    ],
    [
      model,
      gated.options,
      'denied',
      /^org\/tiny: the model is gated; accept its terms at http.*\/org\/tiny and set HF_TOKEN$/,
    ],
    [
      model,
      { ...open.options, revision: '../../x' },
      'invalid',
      /^--revision "\.\.\/\.\.\/x" is not a branch, tag or commit$/,
    ],
    [model, { ...open.options, hfEndpoint: 'hub' }, 'invalid', /^HF_ENDPOINT is not a URL: hub$/],
  ]
  for (const [name, options, code, message] of cases)
    await assert.rejects(openSource(name, options), (error: Error & { code: string }) => {
      assert.equal(error.code, code)
      assert.match(error.message, message)
      assert.doesNotMatch(error.message, /hf_wrong|\n/)
      return true
    })
})

test('a commit given as revision is read without a branch being noted', async (t) => {
  const files = modelFiles()
  const { hub, options } = await start(t, files)
  await (await openSource(model, { ...options, revision: hub.commit })).close()
  await assert.rejects(openSource(model, { ...options, offline: true }), /org\/tiny \(main\) is not in the cache/)
  const source = await openSource(model, { ...options, revision: hub.commit, offline: true })
  await assertHolds(source, files)
  await source.close()
})

test('a file that arrives damaged is refused by its SHA-256 and does not enter the cache', async (t) => {
  const { hub, downloadDir, options } = await start(t, modelFiles())
  hub.fault = ({ name, begin }) => (name === 'model.safetensors' && begin === 0 ? { kind: 'damage' } : null)
  await assert.rejects(openSource(model, options), {
    code: 'corrupt',
    message: /^org\/tiny\/model\.safetensors arrived damaged: its hash is not [0-9a-f]{64}$/,
  })
  assert.ok(!(sha256(modelFiles()['model.safetensors']!) in (await blobs(downloadDir, folder))))
  assert.deepEqual(await unfinished(downloadDir), [])
})

test('broken connections, silence, 503 and expired addresses end in the right bytes', async (t) => {
  const files = modelFiles()
  const { hub, options } = await start(t, files)
  hub.fault = ({ count }) => {
    if (count === 3) return { kind: 'reset', after: 1_000 }
    if (count === 5) return { kind: 'stall', after: 1_000 }
    if (count === 7) return { kind: 'short', after: 1_000 }
    if (count === 9) hub.expireAddresses()
    return count % 4 === 0 ? { kind: 'status', status: 503, code: 'Busy' } : null
  }
  const source = await openSource(model, { ...options, network: { ...quick, idleMs: 150 } })
  await assertHolds(source, files)
  await source.close()
})

test('a hub that is down does not keep a node from starting the model it has', async (t) => {
  const files = modelFiles()
  const { hub, options } = await start(t, files)
  await (await openSource(model, options)).close()
  await hub.close()
  const warnings: string[] = []
  const source = await openSource(model, { ...options, warn: (message) => warnings.push(message) })
  await assertHolds(source, files)
  await source.close()
  assert.match(
    warnings.at(-1)!,
    /^org\/tiny: gave up after 9 attempts: .*; going on with the copy in .*models--org--tiny/,
  )
  await assert.rejects(openSource('org/other', options), { code: 'unreachable' })
})
