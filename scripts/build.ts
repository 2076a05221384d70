// `npm run kernels`: compiles engine/kernels/cpu into libpagestream_cpu.so; `npm start` and `npm test` call
// buildKernels() first. `npm run build:cuda` (scripts/build.ts cuda) builds the library for GPUs.
//
// Every op is compiled once per instruction set; which one runs is chosen by cpuid when a device is opened. Objects of
// the plain set are linked first, so that no function which the C++ library brings along carries instructions that this
// machine may lack.
import { globSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { headerUrl } from '../engine/native/header.ts'
import { architectures, buildCuda } from './kernels/cuda.ts'
import { type BuildOptions, buildLibrary, type Recipe } from './kernels/library.ts'

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
          ...['-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mfma', '-mf16c'],
          // g++ warns of its own intrinsics: https://gcc.gnu.org/bugzilla/show_bug.cgi?id=105593
          '-Wno-maybe-uninitialized',
        ],
      }
    : { plain: [] }

function cpuRecipe(): Recipe {
  return {
    backend: 'cpu',
    title: 'the CPU kernels',
    compiler,
    missingCompiler: `the C++ compiler ${compiler} is missing; install it: sudo apt-get install g++`,
    sources: globSync(`${cpuFolder}*.cpp`).sort(),
    headers: globSync(`${cpuFolder}{,../}*.h`).sort(),
    include: [cpuFolder, join(cpuFolder, '..')],
    sets: instructionSets,
    isCommon: (name) => ['device', 'dispatch', 'memory', 'pool', 'weight'].includes(name),
    flags: [...commonFlags, ...numericFlags],
    linkFlags: ['-pthread', '-Wl,--no-undefined'],
  }
}

/** Returns the path of the library. Rejects with one line that says what to do. */
export function buildKernels(options: BuildOptions = {}): Promise<string> {
  return buildLibrary(cpuRecipe(), options)
}

/** build.ts [cuda [all | sm_80 | native ...]] */
async function main([backend = 'cpu', ...wanted]: string[]): Promise<string> {
  const log = (line: string) => console.log(line)
  if (backend === 'cpu') return buildKernels({ log })
  if (backend !== 'cuda') throw new Error(`there is no backend ${backend}; cpu or cuda`)
  return buildCuda({ log, ...(wanted.length > 0 && { targets: wanted[0] === 'all' ? architectures : wanted }) })
}

if (import.meta.main) {
  main(process.argv.slice(2)).then(
    (library) => console.log(library),
    (error: Error) => {
      console.error(error.message)
      process.exitCode = 1
    },
  )
}
