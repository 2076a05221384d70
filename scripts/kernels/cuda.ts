// The library for GPUs, compiled by nvcc, and the same sources compiled by g++ against an emulation of CUDA on a CPU
// (engine/kernels/cuda/emulation), which is for tests. The CUDA runtime is linked in; the driver is found when a device
// is opened, so the library loads on a machine without one and says so.
import { existsSync, globSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { headerUrl } from '../../engine/native/header.ts'
import { type BuildOptions, buildLibrary, compilerVersion, type Recipe } from './library.ts'

const folder = fileURLToPath(new URL('cuda/', headerUrl))
const emulation = join(folder, 'emulation')
const standardPlace = '/usr/local/cuda/bin/nvcc'
const flags = ['-std=c++17', '-O3']

/** What `all` builds: Ampere, Ada, Hopper, and PTX that the driver compiles for newer ones. */
export const architectures = ['sm_80', 'sm_89', 'sm_90a', 'compute_90']
const forDevelopment = ['sm_90a']

const nvcc = () => (existsSync(standardPlace) ? standardPlace : 'nvcc')

/** native: that of this machine's GPU. */
function targetFlags(target: string): string[] {
  if (target === 'native') return ['-arch=native']
  return ['-gencode', `arch=${target.replace('sm_', 'compute_')},code=${target}`]
}

const shared = {
  headers: globSync([`${folder}*.h`, `${folder}../*.h`, `${emulation}/*.h`]).sort(),
  include: [folder, join(folder, '..')],
  isCommon: () => false,
}

function cudaRecipe(targets: string[]): Recipe {
  return {
    ...shared,
    backend: 'cuda',
    title: `the CUDA kernels (${targets.join(', ')})`,
    compiler: nvcc(),
    missingCompiler: 'the CUDA compiler nvcc is missing: install the CUDA toolkit 12 or 13, or serve on the CPU',
    sources: globSync(`${folder}*.cu`).sort(),
    sets: { cuda: targets.flatMap(targetFlags) },
    flags: ['-x', 'cu', ...flags, '-Xcompiler', '-fPIC,-fvisibility=hidden,-Wall'],
    linkFlags: [
      '-cudart',
      'static',
      '-Xlinker',
      '--exclude-libs,ALL,--no-undefined',
      ...targets.flatMap(targetFlags),
      '-ldl',
    ],
  }
}

function emulatedRecipe(): Recipe {
  return {
    ...shared,
    backend: 'emulated',
    title: 'the CUDA kernels for the emulation',
    compiler: 'g++',
    missingCompiler: 'the C++ compiler g++ is missing; install it: sudo apt-get install g++',
    sources: [...globSync(`${folder}*.cu`).sort(), join(emulation, 'emulation.cpp')],
    include: [emulation, ...shared.include],
    sets: { emulated: [] },
    flags: [
      ...['-x', 'c++', ...flags, '-fPIC', '-fvisibility=hidden', '-Wall', '-Wextra'],
      ...['-Wno-unknown-pragmas', '-ffp-contract=off', '-fno-math-errno'],
    ],
    linkFlags: ['-Wl,--no-undefined', '-ldl'],
  }
}

export async function hasCudaCompiler(): Promise<boolean> {
  return (await compilerVersion(nvcc())) !== null
}

/** Returns the path of the library. Rejects with one line that says what to do. */
export function buildCuda({ targets = forDevelopment, ...options }: BuildOptions & { targets?: string[] } = {}) {
  return buildLibrary(cudaRecipe(targets), options)
}

export function buildEmulated(options: BuildOptions = {}): Promise<string> {
  return buildLibrary(emulatedRecipe(), options)
}
