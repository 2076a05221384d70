// The built libraries as files: what they export, and how the one for GPUs loads on a machine without one.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { Device } from '../../../engine/native/device.ts'
import { readHeader } from '../../../engine/native/header.ts'
import { KernelError } from '../../../engine/native/library.ts'
import { buildKernels } from '../../../scripts/build.ts'
import { buildCuda, buildEmulated, hasCudaCompiler } from '../../../scripts/kernels/cuda.ts'

const withoutCompiler = !(await hasCudaCompiler()) && 'nvcc is not installed'

function exportedBy(library: string): string[] {
  const table = execFileSync('nm', ['-D', '--defined-only', library], { encoding: 'utf8' })
  return table
    .trim()
    .split('\n')
    .map((line) => line.split(' ').at(-1)!)
    .sort()
}

const header = readHeader()
  .prototypes.map(({ name }) => name)
  .sort()

for (const [name, build, skip] of [
  ['CPU', buildKernels, false],
  ['emulated', buildEmulated, false],
  ['CUDA', buildCuda, withoutCompiler],
] as const) {
  test(`the ${name} library exports the functions of pagestream.h and nothing else`, { skip }, async () => {
    assert.deepEqual(exportedBy(await build()), header)
  })
}

test('without a GPU the CUDA library loads, and says that there is none', { skip: withoutCompiler }, async () => {
  await buildCuda()
  try {
    Device.open({ backend: 'cuda', threads: 0 }).close()
  } catch (error) {
    assert.ok(error instanceof KernelError)
    assert.equal(error.code, -4)
    assert.match(error.message, /^ps_ctx_create: no NVIDIA GPU with a driver for CUDA 13 here \(cudaGetDeviceCount: /)
  }
})
