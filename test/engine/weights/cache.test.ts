// The cache with S3 behind it; its layout and the hub are in hub.test.ts.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Disk, systemDisk } from '../../../engine/weights/download.ts'
import { type OpenOptions, openSource } from '../../../engine/weights/open.ts'
import type { Progress } from '../../../engine/weights/source.ts'
import { systemClock } from '../../../queue/clock.ts'
import { noFault } from '../../doubles/faults.ts'
import { type S3Double, startS3 } from '../../doubles/s3.ts'
import {
  assertHolds,
  configFile,
  type Files,
  modelFiles,
  noise,
  quick,
  temporaryFolder,
  unfinished,
} from './fixture.ts'

const model = 's3://models/org/tiny'

async function start(t: TestContext, files: Files) {
  const store = await startS3()
  t.after(() => store.close())
  put(store, files)
  const downloadDir = await temporaryFolder(t)
  const warnings: string[] = []
  const options: OpenOptions = {
    clock: systemClock,
    random: () => 0.5,
    network: quick,
    s3: { endpoint: store.endpoint, credentials: store.keys },
    downloadDir,
    warn: (message) => warnings.push(message),
  }
  return { store, downloadDir, options, warnings }
}

function put(store: S3Double, files: Files): void {
  for (const [name, file] of Object.entries(files)) store.put(`org/tiny/${name}`, file)
}

async function assertOpens(options: OpenOptions, files: Files): Promise<void> {
  const source = await openSource(model, options)
  await assertHolds(source, files)
  await source.close()
}

test('the second start reads the node cache and asks S3 for the list and the configuration only', async (t) => {
  const files = modelFiles()
  const { store, options, downloadDir } = await start(t, files)
  await assertOpens(options, files)
  store.log.length = 0
  await assertOpens(options, files)
  assert.deepEqual(
    store.log.map((line) => /list-type|[\w.]+(?=\?x-id)/.exec(line)?.[0]),
    ['list-type', 'config.json'],
  )
  assert.deepEqual(await unfinished(downloadDir), [])
})

test('a model that this engine cannot run is refused before a byte of its weights or a folder of the cache', async (t) => {
  const files = { ...modelFiles(), 'config.json': configFile({ architectures: ['MambaForCausalLM'] }) }
  const { store, options, downloadDir } = await start(t, files)
  await assert.rejects(openSource(model, options), { name: 'ModelError', message: /architectures.*MambaForCausalLM/ })
  assert.equal(store.log.length, 2)
  assert.deepEqual(await readdir(downloadDir), [])
})

test('progress counts every byte once and ends at the total', async (t) => {
  const files = modelFiles()
  const { store, options } = await start(t, files)
  store.fault = ({ count }) => (count % 4 === 1 ? { kind: 'short', after: 100 } : null)
  const steps: Progress[] = []
  await assertOpens({ ...options, onProgress: (step) => steps.push(step) }, files)
  const total = Object.values(files).reduce((sum, file) => sum + file.length, 0)
  assert.equal(steps.at(-1)!.bytes, total)
  assert.ok(steps.every((step, i) => step.total === total && step.bytes > (steps[i - 1]?.bytes ?? 0)))
})

test('a new version in S3 is fetched beside the old one, and what has not changed is not fetched again', async (t) => {
  const first = modelFiles(1)
  const { store, options } = await start(t, first)
  await assertOpens(options, first)
  const second = { ...first, 'config.json': configFile({ new: true }) }
  put(store, second)
  store.log.length = 0
  await assertOpens(options, second)
  assert.ok(!store.log.some((line) => line.includes('model.safetensors')))
})

test('whatever mixture of faults a third of the answers have, the bytes are right', async (t) => {
  const files = modelFiles()
  for (let seed = 1; seed <= 15; seed++) {
    const { store, options, downloadDir } = await start(t, files)
    store.fault = ({ name, begin, count }) => {
      const [chance, kind] = noise(`${seed} ${name} ${begin} ${count}`, 2)
      const after = (begin + 7 * count) % 9_000
      if (chance! > 85) return null
      if (kind! < 100) return { kind: 'status', status: kind! < 50 ? 503 : 500, code: 'SlowDown' }
      if (kind! < 105) return { kind: 'stall', after }
      return { kind: kind! < 155 ? 'reset' : kind! < 205 ? 'short' : 'whole', after }
    }
    await assertOpens({ ...options, network: { ...quick, idleMs: 100 }, cache: seed % 2 === 0 }, files)
    assert.deepEqual(await unfinished(downloadDir), [])
  }
})

test('an object replaced during the download: one restart with the new version, and no mixture', async (t) => {
  const [first, second] = [modelFiles(1), modelFiles(2)]
  const { store, options, warnings } = await start(t, first)
  store.fault = ({ name, begin }) => {
    if (name.endsWith('.safetensors') && begin > 100_000) put(store, second)
    return null
  }
  await assertOpens(options, second)
  assert.deepEqual(warnings, [
    's3://models/org/tiny/model.safetensors was replaced while the model was being read; starting again with the new version',
  ])
})

test('an object that is replaced again and again is an error', async (t) => {
  const { store, options, downloadDir } = await start(t, modelFiles(1))
  let version = 1
  store.fault = ({ name, begin }) => {
    if (name.endsWith('.safetensors') && begin > 100_000) put(store, modelFiles(++version))
    return null
  }
  await assert.rejects(openSource(model, options), { code: 'changed' })
  assert.deepEqual(await unfinished(downloadDir), [])
})

test('a disk that fills up: a warning, the model from memory, nothing left behind, nothing trusted later', async (t) => {
  const files = modelFiles()
  const { store, options, downloadDir, warnings } = await start(t, files)
  let room = 60_000
  const disk: Disk = {
    freeBytes: async () => Number.POSITIVE_INFINITY,
    async write(file, data, position) {
      room -= data.length
      if (room < 0) throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
      await systemDisk.write(file, data, position)
    },
  }
  await assertOpens({ ...options, disk }, files)
  assert.match(warnings.join(), /cannot be written: ENOSPC; s3:\/\/models\/org\/tiny is read straight into memory/)
  assert.deepEqual(await unfinished(downloadDir), [])
  store.log.length = 0
  await assertOpens(options, files)
  assert.ok(store.log.some((line) => line.includes('model.safetensors')))
})

test('a disk that is too small is not filled at all', async (t) => {
  const files = modelFiles()
  const { options, downloadDir, warnings } = await start(t, files)
  await assertOpens({ ...options, disk: { ...systemDisk, freeBytes: async () => 1_000 } }, files)
  assert.match(warnings.join(), /has 0\.0 GB free, 0\.0 GB are needed; /)
  assert.deepEqual(await unfinished(downloadDir), [])
})

test('a cache folder that cannot be written is a warning too', async (t) => {
  const files = modelFiles()
  const { options, downloadDir, warnings } = await start(t, files)
  await writeFile(join(downloadDir, 'file'), '')
  await assertOpens({ ...options, downloadDir: join(downloadDir, 'file') }, files)
  assert.match(warnings.join(), /the cache folder .* cannot be used: ENOTDIR; /)
})

test('offline, the cache is all there is', async (t) => {
  const files = modelFiles()
  const { store, options } = await start(t, files)
  await assert.rejects(openSource(model, { ...options, offline: true }), {
    code: 'not_found',
    message:
      /^s3:\/\/models\/org\/tiny \(main\) is not in the cache .*; offline mode allows no download \(--offline, HF_HUB_OFFLINE\)$/,
  })
  await assertOpens(options, files)
  store.log.length = 0
  await assertOpens({ ...options, offline: true }, files)
  assert.deepEqual(store.log, [])
})

test('a blob of the wrong size is fetched again', async (t) => {
  const files = modelFiles()
  const { options, downloadDir } = await start(t, files)
  await assertOpens(options, files)
  const repository = (await readdir(downloadDir))[0]!
  for (const blob of await readdir(join(downloadDir, repository, 'blobs')))
    await writeFile(join(downloadDir, repository, 'blobs', blob), 'cut short')
  await assertOpens(options, files)
})

test('a process killed in the middle of a download leaves nothing that the next one trusts', async (t) => {
  const files = modelFiles()
  const { store, options, downloadDir } = await start(t, files)
  const isUnderWay = new Promise<void>((resolve) => {
    store.fault = ({ begin }) => {
      if (begin < 100_000) return null
      resolve()
      return { kind: 'stall', after: 10 }
    }
  })
  const { clock: _clock, random: _random, warn: _warn, ...plain } = options
  const program = `
    import { openSource } from '${import.meta.resolve('../../../engine/weights/open.ts')}'
    import { systemClock as clock } from '${import.meta.resolve('../../../queue/clock.ts')}'
    await openSource('${model}', { clock, random: () => 0.5, ...${JSON.stringify(plain)} })`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], { stdio: 'inherit' })
  const exit = once(child, 'exit')
  await isUnderWay
  child.kill('SIGKILL')
  await exit
  assert.notDeepEqual(await unfinished(downloadDir), [])
  store.fault = noFault
  await assertOpens(options, files)
})

test('what a killed download left is removed once it is old, and left alone while it may be alive', async (t) => {
  const files = modelFiles()
  const { options, downloadDir, store } = await start(t, files)
  await assertOpens(options, files)
  const repository = join(downloadDir, (await readdir(downloadDir))[0]!)
  const longAgo = new Date(systemClock.now() - 3_600_000)
  for (const name of ['incomplete-old', 'incomplete-alive']) {
    await mkdir(join(repository, name))
    await writeFile(join(repository, name, 'model.safetensors'), 'half')
  }
  await utimes(join(repository, 'incomplete-old', 'model.safetensors'), longAgo, longAgo)
  await utimes(join(repository, 'incomplete-old'), longAgo, longAgo)
  put(store, modelFiles(2))
  await assertOpens(options, modelFiles(2))
  assert.deepEqual(
    (await unfinished(downloadDir)).map((name) => name.split('/')[1]),
    ['incomplete-alive', 'incomplete-alive'],
  )
})

test('two engines of one node may fill the cache at the same time', async (t) => {
  const files = modelFiles()
  const { options, downloadDir } = await start(t, files)
  await Promise.all([assertOpens(options, files), assertOpens(options, files), assertOpens(options, files)])
  assert.deepEqual(await unfinished(downloadDir), [])
})
