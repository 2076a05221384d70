// `npm run kernels`: compiles engine/kernels/cpu into libpagestream_cpu.so; `npm start` and `npm test` call
// buildKernels() first. There is no make: an object is named by the hash of what it is made from (source, headers,
// flags, compiler), so it exists or it must be compiled. Files appear by rename, so a reader never sees half of one.
//
// Every op is compiled once per instruction set; which one runs is chosen by cpuid when a device is opened. Objects of
// the plain set are linked first: the linker keeps the first of equal inline functions, so none that the C++ library
// brings along carries instructions that this machine may lack.
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, globSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { headerUrl, readHeader } from '../engine/native/header.ts'
import { libraryFolders, libraryName, outputFolder } from '../engine/native/location.ts'
import { dispatchSource, type InstructionSet, opsHeader } from './kernels/generate.ts'
import { withLock } from './kernels/lock.ts'

const cpuFolder = fileURLToPath(new URL('cpu/', headerUrl))
const compiler = 'g++'
const commonFlags = ['-std=c++17', '-O3', '-fPIC', '-pthread', '-fvisibility=hidden', '-Wall', '-Wextra']
/** No a * b + c becomes a fused one unless it is written so: every instruction set gives the same bits. */
const numericFlags = ['-ffp-contract=off', '-fno-math-errno']

const avx512 = ['-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mfma', '-mf16c']
// g++ warns of its own intrinsics: https://gcc.gnu.org/bugzilla/show_bug.cgi?id=105593
const avx512Flags = [...avx512, '-Wno-maybe-uninitialized', '-DPS_ISA_AVX512']

/** Of a set with a base only linear.cpp is compiled; the other ops are those of the base. */
const instructionSets: InstructionSet[] =
  process.arch === 'x64'
    ? [
        { name: 'plain', flags: ['-DPS_ISA_PLAIN'] },
        { name: 'avx2', flags: ['-mavx2', '-mfma', '-mf16c', '-DPS_ISA_AVX2'] },
        { name: 'avx512', flags: avx512Flags },
        { name: 'avx512_vnni', base: 'avx512', flags: [...avx512Flags, '-mavx512vnni'] },
        { name: 'avx512_bf16', base: 'avx512', flags: [...avx512Flags, '-mavx512vnni', '-mavx512bf16'] },
        {
          name: 'amx',
          base: 'avx512',
          flags: [...avx512Flags, '-mavx512vnni', '-mavx512bf16', '-mamx-tile', '-mamx-int8', '-mamx-bf16'],
        },
      ]
    : [{ name: 'plain', flags: ['-DPS_ISA_PLAIN'] }]

/** Compiled once, whatever the instruction set: what only moves and keeps things. */
const isCommon = (file: string) => ['device', 'dispatch', 'memory', 'pool', 'weight'].includes(basename(file, '.cpp'))

type Unit = { source: string; object: string; flags: string[] }

export type BuildOptions = { log?: (line: string) => void }

/** Returns the path of the library. Rejects with one line that says what to do. */
export async function buildKernels({ log = () => {} }: BuildOptions = {}): Promise<string> {
  const version = await compilerVersion()
  const sources = readSources()
  // An installation that was built before needs no compiler.
  const built = libraryFolders().find((folder) => isBuilt(folder, sources.hash, version))
  if (built) return join(built, libraryName('cpu'))
  if (version === null) throw new Error(`the C++ compiler ${compiler} is missing; install it: sudo apt-get install g++`)
  const folder = outputFolder()
  return withLock(join(folder, 'lock'), async () => {
    if (!isBuilt(folder, sources.hash, version)) await build(folder, sources, version, log)
    return join(folder, libraryName('cpu'))
  })
}

async function build(folder: string, sources: Sources, version: string, log: (line: string) => void): Promise<void> {
  const began = performance.now()
  for (const name of ['generated', 'objects']) mkdirSync(join(folder, name), { recursive: true })
  for (const [name, text] of Object.entries(sources.generated)) replace(join(folder, 'generated', name), text)
  const units = [...sources.files, join(folder, 'generated', 'dispatch.cpp')].flatMap((source) =>
    unitsOf(source, folder, `${version}\n${sources.headers}`),
  )
  const missing = units.filter(({ object }) => !existsSync(object))
  await compileAll(missing, progressLine(log, began))
  await link(units, join(folder, libraryName('cpu')))
  replace(join(folder, 'stamp'), stampOf(sources.hash, version))
  removeOthers(join(folder, 'objects'), new Set(units.map(({ object }) => object)))
  const seconds = (performance.now() - began) / 1000
  log(`built the CPU kernels in ${seconds.toFixed(1)} s (${missing.length} of ${units.length} files compiled)`)
}

function isBuilt(folder: string, sourcesHash: string, version: string | null): boolean {
  if (!existsSync(join(folder, libraryName('cpu'))) || !existsSync(join(folder, 'stamp'))) return false
  const stamp = readFileSync(join(folder, 'stamp'), 'utf8')
  return version === null ? stamp.startsWith(sourcesHash) : stamp === stampOf(sourcesHash, version)
}

const stampOf = (sourcesHash: string, version: string) => `${sourcesHash}\n${version}\n`

/** hash: of all that the library is made from, but the compiler. */
type Sources = { files: string[]; generated: Record<string, string>; headers: string; hash: string }

function readSources(): Sources {
  const { prototypes, hash: headerHash } = readHeader()
  const generated = {
    'ops.h': opsHeader(prototypes),
    'dispatch.cpp': dispatchSource(prototypes, headerHash, instructionSets),
  }
  const read = (files: string[]) => files.map((file) => readFileSync(file, 'utf8')).join('\n')
  const headers = [generated['ops.h'], read(globSync(`${cpuFolder}{,../}*.h`).sort())].join('\n')
  const files = globSync(`${cpuFolder}*.cpp`).sort()
  const flags = JSON.stringify([commonFlags, numericFlags, instructionSets])
  return { files, generated, headers, hash: hash([headers, generated['dispatch.cpp'], read(files), flags].join('\n')) }
}

function unitsOf(source: string, folder: string, common: string): Unit[] {
  const includes = [cpuFolder, join(cpuFolder, '..'), join(folder, 'generated')].map((each) => `-I${each}`)
  const isLinear = basename(source) === 'linear.cpp'
  const sets = instructionSets.filter(({ name, base }) => (isCommon(source) ? name === 'plain' : isLinear || !base))
  return sets.map(({ name, flags: machine }) => {
    const flags = [...commonFlags, ...numericFlags, ...machine, `-DPS_ISA=${name}`]
    const key = hash(`${common}\n${flags}\n${readFileSync(source, 'utf8')}`)
    const object = join(folder, 'objects', `${basename(source, '.cpp')}-${name}-${key}.o`)
    return { source, object, flags: [...flags, ...includes] }
  })
}

async function compileAll(units: Unit[], onDone: (done: number, of: number) => void): Promise<void> {
  const queue = [...units]
  let done = 0
  const worker = async () => {
    for (let unit = queue.shift(); unit; unit = queue.shift()) {
      const partial = `${unit.object}.partial`
      await run([...unit.flags, '-c', unit.source, '-o', partial])
      renameSync(partial, unit.object)
      onDone(++done, units.length)
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
}

async function link(units: Unit[], library: string): Promise<void> {
  const objects = units.map(({ object }) => object)
  const plainFirst = objects.sort((a, b) => Number(b.includes('-plain-')) - Number(a.includes('-plain-')))
  await run(['-shared', '-pthread', '-Wl,--no-undefined', ...plainFirst, '-o', `${library}.partial`])
  renameSync(`${library}.partial`, library)
}

function run(args: string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(compiler, args, { stdio: ['ignore', 'inherit', 'inherit'] })
    child.on('error', reject)
    child.on('close', (code, signal) => {
      if (code === 0) resolve()
      else reject(new Error(`${compiler} failed (${signal ?? `exit code ${code}`}) with the message above`))
    })
  })
}

/** null: there is no compiler. */
async function compilerVersion(): Promise<string | null> {
  try {
    return (await promisify(execFile)(compiler, ['--version'])).stdout.split('\n')[0]!
  } catch {
    return null
  }
}

/** Says how far it is, once the build takes longer than 2 s, every 2 s. */
function progressLine(log: (line: string) => void, began: number): (done: number, of: number) => void {
  let next = began + 2000
  return (done, of) => {
    if (performance.now() < next) return
    next = performance.now() + 2000
    log(`building the CPU kernels: ${done} of ${of} files`)
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

if (import.meta.main) {
  buildKernels({ log: (line) => console.log(line) }).then(
    (library) => console.log(library),
    (error: Error) => {
      console.error(error.message)
      process.exitCode = 1
    },
  )
}
