// Builds one shared library from its recipe. There is no make: an object is named by the hash of what it is made from
// (source, headers, flags, compiler), so it exists or it must be compiled. Files appear by rename, so a reader never
// sees half of one. Called by scripts/build.ts and kernels/cuda.ts.
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, extname, join } from 'node:path'
import { promisify } from 'node:util'
import { readHeader } from '../../engine/native/header.ts'
import { type Backend, libraryFolders, libraryName, outputFolder } from '../../engine/native/location.ts'
import { dispatchSource, opsHeader } from './generate.ts'
import { withLock } from './lock.ts'

export type Recipe = {
  backend: Backend
  /** What is built, in a message. */
  title: string
  compiler: string
  missingCompiler: string
  sources: string[]
  headers: string[]
  include: string[]
  /** The tables of ops, and the flags that each is compiled with. */
  sets: Record<string, string[]>
  /** Compiled once, with the flags of the first set: what only moves and keeps things. */
  isCommon: (name: string) => boolean
  flags: string[]
  linkFlags: string[]
}

export type BuildOptions = { log?: (line: string) => void }

type Unit = { source: string; object: string; flags: string[] }

/** Returns the path of the library. Rejects with one line that says what to do. */
export async function buildLibrary(recipe: Recipe, { log = () => {} }: BuildOptions = {}): Promise<string> {
  const version = await compilerVersion(recipe.compiler)
  const sources = readSources(recipe)
  // An installation that was built before needs no compiler.
  const built = libraryFolders().find((folder) => isBuilt(folder, recipe, sources.hash, version))
  if (built) return join(built, libraryName(recipe.backend))
  if (version === null) throw new Error(recipe.missingCompiler)
  const folder = outputFolder()
  return withLock(join(folder, `lock-${recipe.backend}`), async () => {
    if (!isBuilt(folder, recipe, sources.hash, version)) await build(folder, recipe, sources, version, log)
    return join(folder, libraryName(recipe.backend))
  })
}

async function build(
  folder: string,
  recipe: Recipe,
  sources: Sources,
  version: string,
  log: (line: string) => void,
): Promise<void> {
  const began = performance.now()
  const own = join(folder, recipe.backend)
  for (const name of ['generated', 'objects']) mkdirSync(join(own, name), { recursive: true })
  for (const [name, text] of Object.entries(sources.generated)) replace(join(own, 'generated', name), text)
  const units = [...recipe.sources, join(own, 'generated', 'dispatch.cpp')].flatMap((source) =>
    unitsOf(recipe, source, own, `${version}\n${sources.headers}`),
  )
  const missing = units.filter(({ object }) => !existsSync(object))
  await compileAll(recipe.compiler, missing, progressLine(recipe.title, log, began))
  await link(recipe, units, own, join(folder, libraryName(recipe.backend)))
  replace(join(own, 'stamp'), stampOf(sources.hash, version))
  removeOthers(join(own, 'objects'), new Set(units.map(({ object }) => object)))
  const seconds = (performance.now() - began) / 1000
  log(`built ${recipe.title} in ${seconds.toFixed(1)} s (${missing.length} of ${units.length} files compiled)`)
}

function isBuilt(folder: string, { backend }: Recipe, sourcesHash: string, version: string | null): boolean {
  const stampFile = join(folder, backend, 'stamp')
  if (!existsSync(join(folder, libraryName(backend))) || !existsSync(stampFile)) return false
  const stamp = readFileSync(stampFile, 'utf8')
  return version === null ? stamp.startsWith(sourcesHash) : stamp === stampOf(sourcesHash, version)
}

const stampOf = (sourcesHash: string, version: string) => `${sourcesHash}\n${version}\n`

/** hash: of all that the library is made from, but the compiler. */
type Sources = { generated: Record<string, string>; headers: string; hash: string }

function readSources(recipe: Recipe): Sources {
  const { prototypes, hash: headerHash } = readHeader()
  const generated = {
    'ops.h': opsHeader(prototypes),
    'dispatch.cpp': dispatchSource(prototypes, headerHash, Object.keys(recipe.sets)),
    // The linker exports these and nothing that the C++ library brings along.
    'exports.map': `{ global: ${prototypes.map(({ name }) => `${name};`).join(' ')} local: *; };\n`,
  }
  const read = (files: string[]) => files.map((file) => readFileSync(file, 'utf8')).join('\n')
  const headers = [generated['ops.h'], read(recipe.headers)].join('\n')
  const flags = JSON.stringify([recipe.flags, recipe.linkFlags, recipe.sets])
  return {
    generated,
    headers,
    hash: hash([headers, ...Object.values(generated), read(recipe.sources), flags].join('\n')),
  }
}

function unitsOf(recipe: Recipe, source: string, folder: string, common: string): Unit[] {
  const includes = [...recipe.include, join(folder, 'generated')].map((each) => `-I${each}`)
  const name = basename(source, extname(source))
  const sets = Object.entries(recipe.sets)
  return (recipe.isCommon(name) ? sets.slice(0, 1) : sets).map(([set, machine]) => {
    const flags = [...recipe.flags, ...machine, `-DPS_ISA=${set}`, `-DPS_ISA_${set.toUpperCase()}`]
    const key = hash(`${common}\n${flags}\n${readFileSync(source, 'utf8')}`)
    const object = join(folder, 'objects', `${name}-${set}-${key}.o`)
    return { source, object, flags: [...flags, ...includes] }
  })
}

async function compileAll(compiler: string, units: Unit[], onDone: (done: number, of: number) => void): Promise<void> {
  const queue = [...units]
  let done = 0
  const worker = async () => {
    for (let unit = queue.shift(); unit; unit = queue.shift()) {
      const partial = `${unit.object}.partial`
      await run(compiler, [...unit.flags, '-c', unit.source, '-o', partial])
      renameSync(partial, unit.object)
      onDone(++done, units.length)
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
}

/** Objects of the first set come first: the linker keeps the first of equal inline functions. */
async function link(
  { compiler, sets, linkFlags }: Recipe,
  units: Unit[],
  folder: string,
  library: string,
): Promise<void> {
  const first = `-${Object.keys(sets)[0]}-`
  const objects = units.map(({ object }) => object)
  objects.sort((a, b) => Number(b.includes(first)) - Number(a.includes(first)))
  const exports = ['-Xlinker', `--version-script=${join(folder, 'generated', 'exports.map')}`]
  await run(compiler, ['-shared', ...exports, ...linkFlags, ...objects, '-o', `${library}.partial`])
  renameSync(`${library}.partial`, library)
}

function run(compiler: string, args: string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(compiler, args, { stdio: ['ignore', 'inherit', 'inherit'] })
    child.on('error', reject)
    child.on('close', (code, signal) => {
      if (code === 0) resolve()
      else reject(new Error(`${compiler} failed (${signal ?? `exit code ${code}`}) with the message above`))
    })
  })
}

/** null: there is no such compiler. */
export async function compilerVersion(compiler: string): Promise<string | null> {
  try {
    const { stdout } = await promisify(execFile)(compiler, ['--version'])
    // nvcc tells its number in the last lines, g++ in the first.
    return stdout.trim().replaceAll('\n', ' ')
  } catch {
    return null
  }
}

/** Says how far it is, once the build takes longer than 2 s, every 2 s. */
function progressLine(title: string, log: (line: string) => void, began: number): (done: number, of: number) => void {
  let next = began + 2000
  return (done, of) => {
    if (performance.now() < next) return
    next = performance.now() + 2000
    log(`building ${title}: ${done} of ${of} files`)
  }
}

function replace(file: string, text: string): void {
  if (existsSync(file) && readFileSync(file, 'utf8') === text) return
  writeFileSync(`${file}.partial`, text)
  renameSync(`${file}.partial`, file)
}

function removeOthers(folder: string, keep: Set<string>): void {
  for (const name of readdirSync(folder)) {
    if (!keep.has(join(folder, name))) rmSync(join(folder, name), { force: true })
  }
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}
