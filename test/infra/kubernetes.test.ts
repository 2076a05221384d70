// The manifests of infra/k8s say only what the programs and the clusters they are meant for accept.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { root } from '../e2e/processes.ts'
import { images, knownVariables, readEngine, readGateway } from './command.ts'
import { parseYaml } from './yaml.ts'

type Variable = { name: string; value?: string; valueFrom?: { secretKeyRef?: { name: string; key: string } } }
type Probe = { httpGet?: { path: string; port: string }; periodSeconds: number; failureThreshold?: number }
type Container = {
  name: string
  image: string
  args: string[]
  env: Variable[]
  envFrom?: { configMapRef: { name: string } }[]
  ports: { name: string; containerPort: number }[]
  startupProbe?: Probe
  livenessProbe: Probe
  readinessProbe: Probe
  lifecycle?: { preStop: { exec: { command: string[] } } }
  resources: Record<'requests' | 'limits', { cpu?: string; memory: string }>
  volumeMounts?: { name: string; mountPath: string }[]
  securityContext: unknown
}
type Pod = {
  automountServiceAccountToken: boolean
  terminationGracePeriodSeconds: number
  securityContext: unknown
  containers: [Container]
  volumes?: Record<string, unknown>[]
}
type Labels = Record<string, string>
type Peer = { podSelector?: { matchLabels: Labels }; namespaceSelector?: Labels }
type Rule = { to?: Peer[]; from?: Peer[]; ports: { port: number }[] }
type Resource = {
  kind: string
  metadata: { name: string }
  spec: {
    selector: Labels & { matchLabels: Labels }
    template: { metadata: { labels: Labels; annotations?: Labels }; spec: Pod }
    volumeClaimTemplates?: { metadata: { name: string } }[]
    ports: { port: number; targetPort: string }[]
    podSelector: { matchLabels: Labels }
    policyTypes: string[]
    egress: Rule[]
  }
}
type Kustomization = { resources: string[]; configMapGenerator: { name: string; literals: string[] }[] }

const folder = `${root}infra/k8s`
const files = globSync(`${folder}/**/*.yaml`).sort()
const read = <Shape>(path: string) => parseYaml(readFileSync(path, 'utf8')) as Shape[]
const base = read<Kustomization>(`${folder}/base/kustomization.yaml`)[0]!
const resources = base.resources.flatMap((file) => read<Resource>(`${folder}/base/${file}`))
const find = (kind: string, name: string) =>
  resources.find((each) => each.kind === kind && each.metadata.name === `pagestream-${name}`)!.spec
const pods = {
  gateway: find('Deployment', 'gateway').template,
  engine: find('Deployment', 'engine').template,
  redis: find('StatefulSet', 'redis').template,
}
const containerOf = (name: keyof typeof pods) => pods[name].spec.containers[0]

/** The environment of a container as its process sees it; secrets are letters. */
function environmentOf({ env, envFrom = [] }: Container, configs = base.configMapGenerator): Record<string, string> {
  const literals = envFrom.flatMap(({ configMapRef }) => configs.filter(({ name }) => name === configMapRef.name))
  const found: Record<string, string> = Object.fromEntries(
    literals.flatMap((config) => config.literals.map((each) => /^(\w+)=(.*)$/.exec(each)!.slice(1))),
  )
  for (const { name, value } of env) found[name] = value === undefined ? 'letters' : expand(value, found)
  return found
}

function expand(text: string, env: Record<string, string>): string {
  return text.replace(/\$\((\w+)\)/g, (_, name: string) => env[name] ?? assert.fail(`$(${name}) is not set`))
}

function bytes(quantity: string): number {
  const [, number, unit] = /^(\d+)(Mi|Gi|mb|gb)$/.exec(quantity)!
  return Number(number) * (unit!.toLowerCase().startsWith('m') ? 2 ** 20 : 2 ** 30)
}

test('the programs accept the arguments of the manifests, and listen where probes and policies expect them', () => {
  for (const name of ['gateway', 'engine'] as const) {
    const container = containerOf(name)
    const env = environmentOf(container)
    const args = container.args.map((each) => expand(each, env))
    const { redis, port } =
      name === 'gateway'
        ? (({ redis, config }) => ({ redis, port: config.port }))(readGateway(args, env))
        : (({ redis, config }) => ({ redis, port: config.metricsPort }))(readEngine(args, env))
    assert.equal(redis, 'redis://:letters@pagestream-redis:6379')
    assert.equal(container.image, `pagestream-${name}`)
    assert.deepEqual(
      container.ports.map(({ containerPort }) => containerPort),
      [port],
    )
    assert.equal(images[name].port, port)
    assert.equal(pods[name].metadata.annotations!['prometheus.io/port'], `${port}`)
    assert.equal(pods[name].metadata.annotations!['prometheus.io/path'], '/metrics')
    for (const [probe, path] of [
      [container.startupProbe!, name === 'gateway' ? '/live' : '/ready'],
      [container.livenessProbe, '/live'],
      [container.readinessProbe, '/ready'],
    ] as const) {
      assert.deepEqual(probe.httpGet, { path, port: container.ports[0]!.name })
    }
  }
  assert.equal(find('Service', 'gateway').ports[0]!.targetPort, containerOf('gateway').ports[0]!.name)
  assert.equal(find('Service', 'redis').ports[0]!.port, containerOf('redis').ports[0]!.containerPort)
})

test('a cluster waits longer for a pod to end than the pod takes to drain', () => {
  const slack = 5
  const pause = Number(containerOf('gateway').lifecycle!.preStop.exec.command[1])
  const gateway = readGateway(containerOf('gateway').args, environmentOf(containerOf('gateway'))).config
  const needed = pause + gateway.drainTimeoutMs / 1000 + slack
  assert.ok(pods.gateway.spec.terminationGracePeriodSeconds >= needed, `${needed} s`)
  const engine = readEngine(containerOf('engine').args, environmentOf(containerOf('engine'))).config
  assert.ok(pods.engine.spec.terminationGracePeriodSeconds >= engine.shutdownTimeout + slack)
})

test('every pod fits the profile "restricted" and names no user that OpenShift would refuse', () => {
  const volumes = new Set(['configMap', 'csi', 'emptyDir', 'ephemeral', 'persistentVolumeClaim', 'projected', 'secret'])
  for (const { spec } of Object.values(pods)) {
    assert.deepEqual(spec.securityContext, { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } })
    assert.deepEqual(spec.containers[0].securityContext, {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    })
    assert.equal(spec.automountServiceAccountToken, false)
    assert.equal(spec.containers.length, 1)
    for (const { name: _, ...kinds } of spec.volumes ?? []) {
      for (const kind of Object.keys(kinds)) assert.ok(volumes.has(kind), kind)
    }
  }
})

test('what an image writes lies on a volume', () => {
  const cache = images.engine.final.find(({ name }) => name === 'ENV')!.text
  assert.equal(cache, 'HOME=/cache XDG_CACHE_HOME=/cache')
  const mounts = containerOf('engine').volumeMounts!
  const volume = mounts.find(({ mountPath }) => mountPath === '/cache')!.name
  assert.ok(pods.engine.spec.volumes!.some(({ name, emptyDir }) => name === volume && emptyDir !== undefined))
})

test('no manifest holds a secret, and every variable is one that somebody reads', () => {
  for (const path of files) {
    const text = readFileSync(path, 'utf8')
    assert.doesNotMatch(text, /^kind: Secret$|secretGenerator|stringData/m, path)
    assert.doesNotMatch(text, /\/\/[^/\s]*:(?!\$\()[^/\s]*@/, `${path}: a password in a URL`)
    const variables = read<Resource>(path).flatMap(({ spec }) => spec?.template?.spec?.containers?.[0]?.env ?? [])
    for (const { name, valueFrom } of variables) {
      const isSecret = /PASSWORD|SECRET|KEY|TOKEN|AUTH/.test(name)
      assert.equal(valueFrom?.secretKeyRef !== undefined, isSecret, `${path}: ${name}`)
      const isUsed = text.includes(`$(${name})`)
      assert.ok(isUsed || knownVariables.has(name), `${path}: nobody reads ${name}`)
    }
  }
  const engine = containerOf('engine')
  for (const path of files.filter((each) => each.endsWith('kustomization.yaml'))) {
    for (const config of read<Kustomization>(path)[0]!.configMapGenerator) {
      for (const name of Object.keys(environmentOf({ ...engine, env: [] }, [config]))) {
        assert.ok(engine.args.includes(`$(${name})`) || knownVariables.has(name), `${path}: nobody reads ${name}`)
      }
    }
  }
})

test('selectors find the pods they mean', () => {
  for (const [name, { metadata }] of Object.entries(pods)) {
    assert.equal(metadata.labels['app.kubernetes.io/component'], name)
    assert.deepEqual(find('NetworkPolicy', name).podSelector.matchLabels, metadata.labels)
    assert.deepEqual(find(name === 'redis' ? 'StatefulSet' : 'Deployment', name).selector.matchLabels, metadata.labels)
    if (name !== 'engine') assert.deepEqual(find('Service', name).selector, metadata.labels)
  }
  assert.deepEqual(find('PodDisruptionBudget', 'gateway').selector.matchLabels, pods.gateway.metadata.labels)
})

test('gateways and engines may connect to Redis and to DNS, Redis to nobody', () => {
  for (const name of ['gateway', 'engine'] as const) {
    const { policyTypes, egress } = find('NetworkPolicy', name)
    assert.deepEqual(policyTypes, ['Ingress', 'Egress'])
    assert.deepEqual(
      egress.map(({ to, ports }) => [to, [...new Set(ports.map(({ port }) => port))]]),
      [
        [[{ podSelector: { matchLabels: pods.redis.metadata.labels } }], [6379]],
        [[{ namespaceSelector: {} }], [53, 5353]],
      ],
    )
  }
  assert.deepEqual(find('NetworkPolicy', 'redis').egress, [])
})

test('Redis keeps what it is given: on disk, nothing evicted, room to rewrite its file', () => {
  const { args, resources } = containerOf('redis')
  const value = (flag: string) => args[args.indexOf(flag) + 1]
  assert.equal(value('--appendonly'), 'yes')
  assert.equal(value('--maxmemory-policy'), 'noeviction')
  assert.ok(bytes(value('--maxmemory')!) * 2 < bytes(resources.limits.memory))
})

test('kustomize renders the base and the example', (t) => {
  const kustomize = (path: string) => execFileSync('kubectl', ['kustomize', path], { encoding: 'utf8', stdio: 'pipe' })
  let version: { major: string; minor: string }
  try {
    const told = execFileSync('kubectl', ['version', '--client', '-o', 'json'], { encoding: 'utf8', stdio: 'pipe' })
    version = JSON.parse(told).clientVersion
  } catch {
    return t.skip('kubectl is not installed')
  }
  const minor = Number.parseInt(version.minor, 10)
  if (version.major === '1' && minor < 21) return t.skip(`kubectl 1.${minor} is too old: kustomize 4 came with 1.21`)
  const kinds = (text: string) => [...text.matchAll(/^kind: (\w+)$/gm)].map(([, kind]) => kind).sort()
  const written = ['ConfigMap', ...resources.map(({ kind }) => kind)]
  assert.deepEqual(kinds(kustomize(`${folder}/base`)), written.sort())
  const example = kustomize(`${folder}/overlays/example`)
  assert.deepEqual(kinds(example), ['NetworkPolicy', ...written].sort())
  assert.match(example, /image: registry\.example\.com\/pagestream-engine:0\.1\.0/)
  assert.match(example, /MODEL: s3:/)
  assert.doesNotMatch(example, /claimName|mountPath: \/models/)
  const names = [...example.matchAll(/name: (pagestream-engine-[a-z0-9]{10})$/gm)].map(([, name]) => name)
  assert.equal(new Set(names).size, 1, 'the Deployment reads the settings of this rendering')
  assert.equal(names.length, 2)
})
