import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { sourceEnvironment } from '../../../engine/weights/environment.ts'
import { temporaryFolder } from './fixture.ts'

test('the variables of the hub and of AWS say where models come from and are kept', async (t) => {
  const home = await temporaryFolder(t, { token: Buffer.from('hf_stored\n') })
  const settings = sourceEnvironment({
    HF_HOME: home,
    HF_ENDPOINT: 'https://mirror',
    HF_HUB_OFFLINE: '1',
    XDG_CACHE_HOME: '/caches',
    AWS_ENDPOINT_URL: 'http://minio:9000',
    AWS_DEFAULT_REGION: 'eu-north-1',
    HTTPS_PROXY: 'http://proxy:3128',
  })
  assert.deepEqual(settings, {
    hubCache: join(home, 'hub'),
    s3Cache: '/caches/pagestream',
    hfToken: 'hf_stored',
    hfEndpoint: 'https://mirror',
    offline: true,
    proxies: { http: undefined, https: 'http://proxy:3128', none: undefined },
    s3: { endpoint: 'http://minio:9000', region: 'eu-north-1' },
  })
})

test('the more special variable wins, and an empty one counts as absent', async (t) => {
  const home = await temporaryFolder(t)
  const settings = sourceEnvironment({
    HF_HOME: home,
    HF_HUB_CACHE: '/hub',
    HF_TOKEN: '',
    HF_HUB_OFFLINE: '0',
    AWS_ENDPOINT_URL: 'http://all',
    AWS_ENDPOINT_URL_S3: 'http://s3',
  })
  assert.equal(settings.hubCache, '/hub')
  assert.equal(settings.hfToken, undefined)
  assert.equal(settings.offline, false)
  assert.equal(settings.s3?.endpoint, 'http://s3')
})
