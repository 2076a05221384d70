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
import { libraryName, outputFolder } from '../engine/native/location.ts'
import { dispatchSource, opsHeader } from './kernels/generate.ts'
import { withLock } from './kernels/lock.ts'

const cpuFolder = fileURLToPath(new URL('cpu/', headerUrl))
const compiler = 'g++'
const commonFlags = ['-std=c++17', '-O3', '-fPIC', '-pthread', '-fvisibility=hidden', '-Wall', '-Wextra']
/** No a * b + c becomes a fused one unless it is written so: every instruction set gives the same bits. */
const numericFlags = ['-ffp-contract=off', '-fno-math-errno']

const instructionSets: Record<string, string[]> =
  process.arch === 'x64'
    ? {
        plain: [],
        avx2: ['-mavx2', '-mfma', '-mf16c'],
        avx512: [
          ...['-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mavx512bf16', '-mfma', '-mf16c'],
          // g++ warns of its own intrinsics: https://gcc.gnu.org/bugzilla/show_bug.cgi?id=105593
          '-Wno-maybe-uninitialized',
        ],
      }
    : { plain: [] }

/** Compiled once, whatever the instruction set: what only moves and keeps things. */
const isCommon = (file: string) => ['device', 'memory', 'pool', 'weight'].includes(basename(file, '.cpp'))

type Unit = { source: string; object: string; flags: string[] }

export type BuildOptions = { log?: (line: string) => void }

/** Returns the path of the library. Rejects with one line that says what to do. */
export async function buildKernels({ log = () => {} }: BuildOptions = {}): Promise<string> {
  const folder = outputFolder()
  return withLock(join(folder, 'lock'), async () => {
    const began = performance.now()
    const sources = writeSources(folder)
    const common = `${await compilerVersion()}\n${commonFlags.concat(numericFlags)}\n${sources.headers}`
    const units = sources.files.flatMap((source) => unitsOf(source, folder, common))
    const library = join(folder, libraryName('cpu'))
    const stamp = join(folder, 'stamp')
    const wanted = hash(units.map(({ object }) => object).join('\n'))
    if (existsSync(library) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return library

    const missing = units.filter(({ object }) => !existsSync(object))
    await compileAll(missing, progressLine(log, began))
    await link(units, library)
    writeFileSync(stamp, wanted)
    removeOthers(join(folder, 'objects'), new Set(units.map(({ object }) => object)))
    const seconds = (performance.now() - began) / 1000
    log(`built the CPU kernels in ${seconds.toFixed(1)} s (${missing.length} of ${units.length} files compiled)`)
    return library
  })
}

/** The sources in the order of linking, and the text of all headers. */
function writeSources(folder: string): { files: string[]; headers: string } {
  const generated = join(folder, 'generated')
  mkdirSync(generated, { recursive: true })
  mkdirSync(join(folder, 'objects'), { recursive: true })
  const { prototypes, hash: headerHash } = readHeader()
  replace(join(generated, 'ops.h'), opsHeader(prototypes))
  replace(join(generated, 'dispatch.cpp'), dispatchSource(prototypes, headerHash, Object.keys(instructionSets)))
  const headers = [join(generated, 'ops.h'), ...globSync(`${cpuFolder}*.h`).sort(), `${cpuFolder}../philox.h`]
  return {
    files: [join(generated, 'dispatch.cpp'), ...globSync(`${cpuFolder}*.cpp`).sort()],
    headers: [fileURLToPath(headerUrl), ...headers].map((file) => readFileSync(file, 'utf8')).join('\n'),
  }
}

function unitsOf(source: string, folder: string, common: string): Unit[] {
  const includes = [`-I${cpuFolder}`, `-I${cpuFolder}..`, `-I${join(folder, 'generated')}`]
  const sets = isCommon(source) || basename(source) === 'dispatch.cpp' ? { plain: [] } : instructionSets
  return Object.entries(sets).map(([name, machine]) => {
    const flags = [...commonFlags, ...numericFlags, ...machine, `-DPS_ISA=${name}`, `-DPS_ISA_${name.toUpperCase()}`]
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

async function compilerVersion(): Promise<string> {
  try {
    return (await promisify(execFile)(compiler, ['--version'])).stdout.split('\n')[0]!
  } catch {
    throw new Error('the C++ compiler g++ is missing; install it: sudo apt-get install g++')
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
