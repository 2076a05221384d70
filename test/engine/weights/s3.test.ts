import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { type OpenOptions, openSource } from '../../../engine/weights/open.ts'
import { systemClock } from '../../../queue/clock.ts'
import type { Misbehaviour } from '../../doubles/faults.ts'
import { type S3Double, startS3 } from '../../doubles/s3.ts'
import { assertHolds, type Files, modelFiles, quick, shardedFiles } from './fixture.ts'

const model = 's3://models/org/tiny'
const weights = 'org/tiny/model.safetensors'

async function start(t: TestContext, files: Files, options: Parameters<typeof startS3>[0] = {}): Promise<S3Double> {
  const store = await startS3(options)
  t.after(() => store.close())
  for (const [name, file] of Object.entries(files)) store.put(`org/tiny/${name}`, file)
  return store
}

function optionsFor(store: S3Double, more: Partial<OpenOptions> = {}): OpenOptions {
  const s3 = { endpoint: store.endpoint, credentials: store.keys }
  return { clock: systemClock, random: () => 0.5, s3, network: quick, cache: false, ...more }
}

/** Misbehaves at the first `times` requests for ranges of the weights. */
function atFirst(times: number, misbehaviour: Misbehaviour): S3Double['fault'] {
  let left = times
  return ({ name }) => (name === weights && left-- > 0 ? misbehaviour : null)
}

test('a prefix of a bucket gives the same bytes as the folder, in ranges pinned to the ETag', async (t) => {
  const files = modelFiles()
  const store = await start(t, files)
  const source = await openSource(model, optionsFor(store))
  await assertHolds(source, files)
  await source.close()
  const ranges = store.log.filter((line) => line.includes('model.safetensors') && line.includes('bytes='))
  assert.ok(ranges.length >= 13, 'the file came in one piece')
  assert.ok(store.log.every((line) => / -> 20[06]$/.test(line)))
})

test('a listing of several pages is read to its end, and deeper folders are left out', async (t) => {
  const files = shardedFiles()
  const store = await start(t, files, { pageSize: 2 })
  store.put('org/tiny/original/consolidated.safetensors', Buffer.from('not this'))
  store.put('org/tiny-other/config.json', Buffer.from('nor this'))
  const source = await openSource(model, optionsFor(store))
  await assertHolds(source, files)
  await source.close()
})

test('weights that the index does not name are not read', async (t) => {
  const files = shardedFiles()
  const store = await start(t, { ...files, 'consolidated.safetensors': Buffer.from('the same weights again') })
  const source = await openSource(`${model}/`, optionsFor(store))
  await assertHolds(source, files)
  await source.close()
})

test('a shard that the index names and the bucket lacks is an error before anything is loaded', async (t) => {
  const { 'model-00002-of-00002.safetensors': _missing, ...files } = shardedFiles()
  const store = await start(t, files)
  await assert.rejects(openSource(model, optionsFor(store)), {
    code: 'not_found',
    message: 's3://models/org/tiny has no model-00002-of-00002.safetensors, which model.safetensors.index.json names',
  })
})

test('wrong keys, buckets and prefixes are named, and no message holds the secret', async (t) => {
  const store = await start(t, modelFiles())
  const wrongSecret = { ...store.keys, secretAccessKey: 'another-secret' }
  const wrongId = { ...store.keys, accessKeyId: 'AKIDUNKNOWN' }
  const denied = /wrong secret or missing permission; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY/
  const cases: [string, Partial<OpenOptions>, string, RegExp][] = [
    [
      model,
      { s3: { endpoint: store.endpoint, credentials: wrongSecret } },
      'denied',
      /denied \(SignatureDoesNotMatch\)/,
    ],
    [model, { s3: { endpoint: store.endpoint, credentials: wrongSecret } }, 'denied', denied],
    [model, { s3: { endpoint: store.endpoint, credentials: wrongId } }, 'denied', /denied \(InvalidAccessKeyId\)/],
    ['s3://other/org/tiny', {}, 'not_found', /^s3:\/\/other\/org\/tiny: there is no bucket other at this endpoint$/],
    ['s3://models/org/none', {}, 'not_found', /^s3:\/\/models\/org\/none holds no model files; is the prefix right\?$/],
    [model, { s3: { endpoint: 'localhost', credentials: store.keys } }, 'invalid', /write it as https:\/\/host:port/],
  ]
  for (const [name, more, code, message] of cases)
    await assert.rejects(openSource(name, optionsFor(store, more)), (error: Error & { code: string }) => {
      assert.equal(error.code, code)
      assert.match(error.message, message)
      assert.doesNotMatch(error.message, /another-secret|test-secret|\n/)
      return true
    })
})

test('an endpoint where nothing listens is reported with the reason after the last attempt', async (t) => {
  const store = await start(t, {})
  await store.close()
  await assert.rejects(openSource(model, optionsFor(store)), {
    code: 'unreachable',
    message: /^s3:\/\/models\/org\/tiny: listing the bucket: gave up after 9 attempts: .*ECONNREFUSED/,
  })
})

test('a storm of 503 at the start and a third of 500 later do not keep a model from loading', async (t) => {
  const files = modelFiles()
  const store = await start(t, files)
  store.fault = ({ count }) => {
    if (count < 6) return { kind: 'status', status: 503, code: 'SlowDown' }
    return count % 3 === 0 ? { kind: 'status', status: 500, code: 'InternalError' } : null
  }
  const source = await openSource(model, optionsFor(store))
  await assertHolds(source, files)
  await source.close()
  assert.ok(store.log.filter((line) => line.endsWith('-> 503')).length === 6)
})

test('a storm that does not end is an error that names the file and the last answer', async (t) => {
  const store = await start(t, modelFiles())
  store.fault = atFirst(Number.POSITIVE_INFINITY, { kind: 'status', status: 503, code: 'SlowDown' })
  const source = await openSource(model, optionsFor(store))
  await assert.rejects(source.read('model.safetensors', 0, 100_000), {
    code: 'unreachable',
    message: 's3://models/org/tiny/model.safetensors: gave up after 9 attempts: SlowDown by the double',
  })
  await source.close()
})

test('a range whose connection breaks or ends early goes on at the byte where it stopped', async (t) => {
  for (const kind of ['reset', 'short'] as const) {
    const files = modelFiles()
    const store = await start(t, files)
    const source = await openSource(model, optionsFor(store))
    store.fault = atFirst(1, { kind, after: 5_000 })
    const expected = files['model.safetensors']!.subarray(0, 16_384)
    assert.ok(expected.equals(await source.read('model.safetensors', 0, 16_384)))
    const asked = store.log.filter((line) => line.includes('model.safetensors')).map((line) => line.split(' ')[2])
    assert.deepEqual(asked, ['bytes=0-16383', 'bytes=5000-16383'])
    await source.close()
  }
})

test('an object that is always cut short is an error, never a short tensor', async (t) => {
  const store = await start(t, modelFiles())
  const source = await openSource(model, optionsFor(store))
  store.fault = () => ({ kind: 'short', after: 10 })
  await assert.rejects(source.read('model.safetensors', 0, 1_000), {
    code: 'unreachable',
    message: /model\.safetensors: gave up after 9 attempts: the body ended at byte 90, asked for bytes up to 1000$/,
  })
  await source.close()
})

test('a body that goes silent is given up after the idle timeout and asked for again', async (t) => {
  const files = modelFiles()
  const store = await start(t, files)
  const source = await openSource(model, optionsFor(store, { network: { ...quick, idleMs: 80 } }))
  store.fault = atFirst(3, { kind: 'stall', after: 700 })
  await assertHolds(source, files)
  store.fault = atFirst(Number.POSITIVE_INFINITY, { kind: 'stall', after: 0 })
  await assert.rejects(source.read('model.safetensors', 0, 100), /gave up after 9 attempts: not a byte in 0\.08 s$/)
  await source.close()
})

test('the whole object instead of a range is asked for again, and refused if it stays so', async (t) => {
  const files = modelFiles()
  const store = await start(t, files)
  const source = await openSource(model, optionsFor(store))
  store.fault = atFirst(2, { kind: 'whole' })
  await assertHolds(source, files)
  store.fault = atFirst(Number.POSITIVE_INFINITY, { kind: 'whole' })
  await assert.rejects(
    source.read('model.safetensors', 0, 100_000),
    /gave up after 9 attempts: the server answered with the whole object instead of a range$/,
  )
  await source.close()
})

test('an object that is replaced while it is read without a cache ends the read, whatever the server thinks of If-Match', async (t) => {
  for (const ignoresIfMatch of [false, true]) {
    const store = await start(t, modelFiles(1), { ignoresIfMatch })
    const source = await openSource(model, optionsFor(store))
    await source.read('model.safetensors', 0, 100)
    store.put(weights, modelFiles(2)['model.safetensors']!)
    await assert.rejects(source.read('model.safetensors', 100, 200), {
      code: 'changed',
      message: 's3://models/org/tiny/model.safetensors was replaced while the model was being read',
    })
    await source.close()
  }
})

test('an object that disappears while it is read is named', async (t) => {
  const store = await start(t, modelFiles(1))
  const source = await openSource(model, optionsFor(store))
  store.fault = atFirst(1, { kind: 'status', status: 404, code: 'NoSuchKey' })
  await assert.rejects(source.read('model.safetensors', 0, 100), {
    code: 'not_found',
    message: 's3://models/org/tiny/model.safetensors does not exist',
  })
  await source.close()
})
