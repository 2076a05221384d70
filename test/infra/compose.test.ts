// infra/compose.yaml starts what the programs are, hardened, and gives them the time they need to end.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { root } from '../e2e/processes.ts'
import { images, knownVariables, readEngine, readGateway } from './command.ts'
import { parseYaml } from './yaml.ts'

type Service = {
  command: string[]
  environment?: Record<string, string>
  ports?: string[]
  volumes?: string[]
  build?: { context: string; dockerfile: string }
  deploy?: { replicas: number }
  stop_grace_period?: string
  read_only: boolean
  cap_drop: string[]
  security_opt: string[]
}
type Compose = { services: Record<'redis' | 'gateway' | 'engine', Service>; volumes: Record<string, null> }

const [{ services, volumes }] = parseYaml(readFileSync(`${root}infra/compose.yaml`, 'utf8')) as [Compose]
/** As compose reads it where none of the variables is set. */
const preset = (text: string) => text.replace(/\$\{\w+:-([^}]*)\}/g, '$1')
const argumentsOf = (service: Service) => service.command.map(preset)
const seconds = (text: string) => Number(/^(\d+)s$/.exec(text)![1])

test('compose starts both programs with arguments they accept, beside a Redis of its own', () => {
  const gateway = readGateway(argumentsOf(services.gateway), {})
  const engine = readEngine(argumentsOf(services.engine), {})
  assert.equal(gateway.redis, 'redis://redis:6379')
  assert.equal(engine.redis, 'redis://redis:6379')
  assert.equal(engine.config.model, '/app/scripts/demo/model')
  assert.ok(images.engine.final.some(({ text }) => text === 'scripts/demo/model scripts/demo/model'))
  assert.ok(seconds(services.gateway.stop_grace_period!) >= gateway.config.drainTimeoutMs / 1000 + 5)
  assert.ok(seconds(services.engine.stop_grace_period!) >= engine.config.shutdownTimeout + 5)
  for (const name of ['gateway', 'engine'] as const) {
    assert.deepEqual(services[name].build, { context: '..', dockerfile: `infra/${name}.Dockerfile` })
    for (const variable of Object.keys(services[name].environment!)) assert.ok(knownVariables.has(variable), variable)
  }
})

test('every gateway gets a port, open to this machine only', () => {
  const [, first, last, target] = /^127\.0\.0\.1:(\d+)-(\d+):(\d+)$/.exec(services.gateway.ports![0]!)!.map(Number)
  assert.equal(last! - first! + 1, services.gateway.deploy!.replicas)
  assert.equal(target, images.gateway.port)
  assert.equal(services.redis.ports ?? services.engine.ports, undefined)
})

test('every service runs without privileges on a root it cannot write', () => {
  for (const service of Object.values(services)) {
    assert.equal(service.read_only, true)
    assert.deepEqual(service.cap_drop, ['ALL'])
    assert.deepEqual(service.security_opt, ['no-new-privileges:true'])
    for (const volume of service.volumes ?? []) assert.ok(preset(volume).split(':')[0]! in volumes, volume)
  }
  const written = services.engine.volumes!.filter((volume) => !volume.endsWith(':ro'))
  assert.deepEqual(written, ['cache:/cache'])
})

test('Redis keeps what it is given: on disk, nothing evicted', () => {
  const { command } = services.redis
  const value = (flag: string) => command[command.indexOf(flag) + 1]
  assert.equal(value('--appendonly'), 'yes')
  assert.equal(value('--maxmemory-policy'), 'noeviction')
  assert.match(value('--maxmemory')!, /^\d+[mg]b$/)
})
