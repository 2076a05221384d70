// The op tests of the CPU, run on the CUDA kernels: every .cu at small shapes, on this machine's CPU.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const suites = ['attention', 'checks', 'linear', 'logprobs', 'rows', 'sample']

for (const suite of suites) {
  test(`the CUDA kernels pass the tests of ${suite} in emulation`, async () => {
    const file = fileURLToPath(new URL(`../${suite}.test.ts`, import.meta.url))
    // Without NODE_TEST_CONTEXT, which would make the child report to this runner in a format of its own.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env
    const child = spawn(process.execPath, [file], { env: { ...env, BACKEND: 'emulated' } })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text))
    const code = await new Promise((resolve) => child.on('close', (code, signal) => resolve(code ?? signal)))
    assert.equal(code, 0, output)
    assert.match(output, /pass [1-9]/)
  })
}
