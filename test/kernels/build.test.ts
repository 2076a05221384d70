// scripts/build.ts on a copy of the sources, with a compiler that only writes down what it is asked.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseHeader } from '../../engine/native/header.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const copied = ['engine/kernels', 'engine/native', 'scripts/build.ts', 'scripts/kernels', 'package.json']

/** Appends its last argument, the output, to the log and creates it; fails for sources that hold an #error. */
const fakeCompiler = `#!/bin/sh
if [ "$1" = --version ]; then echo "g++ $(/bin/cat "$(/usr/bin/dirname "$0")/version")"; exit; fi
for last; do case "$last" in *.cpp) if /bin/grep -q '#error' "$last"; then echo "$last: broken" >&2; exit 1; fi;; esac; done
echo "$last" >> "$(/usr/bin/dirname "$0")/log"
/bin/sleep 0.01
echo object > "$last"
`

function copyOfTree(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'pagestream-build-'))
  t.after(() => rmSync(folder, { recursive: true }))
  for (const path of copied) cpSync(join(root, path), join(folder, path), { recursive: true })
  const bin = join(folder, 'bin')
  mkdirSync(bin)
  const build = (path = bin) => {
    const env = { PATH: path, HOME: folder }
    const child = spawn(process.execPath, [join(folder, 'scripts/build.ts')], { env })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text))
    return new Promise<{ code: number | null; output: string }>((resolve) => {
      child.on('close', (code) => resolve({ code, output }))
    })
  }
  const compiler = (version = '12') => {
    writeFileSync(join(bin, 'g++'), fakeCompiler)
    writeFileSync(join(bin, 'version'), version)
    chmodSync(join(bin, 'g++'), 0o755)
  }
  const compiled = () => (existsSync(join(bin, 'log')) ? readFileSync(join(bin, 'log'), 'utf8').trim().split('\n') : [])
  return { folder, build, compiler, compiled }
}

test('a missing compiler is one line that names the fix', async (t) => {
  const { build } = copyOfTree(t)
  const { code, output } = await build()
  assert.equal(code, 1)
  assert.equal(output, 'the C++ compiler g++ is missing; install it: sudo apt-get install g++\n')
})

test('two builds at once compile every file once, and a third one nothing', async (t) => {
  const { folder, build, compiler, compiled } = copyOfTree(t)
  compiler()
  const results = await Promise.all([build(), build()])
  assert.deepEqual(
    results.map(({ code }) => code),
    [0, 0],
  )
  assert.ok(existsSync(join(folder, 'build/libpagestream_cpu.so')))
  assert.equal(new Set(compiled()).size, compiled().length)
  const before = compiled().length
  assert.equal((await build()).code, 0)
  assert.equal(compiled().length, before)
})

test('a changed source, header or compiler is compiled again, and nothing else', async (t) => {
  const { folder, build, compiler, compiled } = copyOfTree(t)
  compiler()
  await build()
  const all = compiled().length
  const change = (file: string) => writeFileSync(join(folder, file), '\n', { flag: 'a' })
  const compiledBy = async (action: () => void) => {
    const before = compiled().length
    action()
    assert.equal((await build()).code, 0)
    return compiled().length - before
  }
  const sets = process.arch === 'x64' ? 3 : 1
  assert.equal(await compiledBy(() => change('engine/kernels/cpu/norm.cpp')), sets + 1)
  assert.equal(await compiledBy(() => change('engine/kernels/cpu/simd.h')), all)
  assert.equal(await compiledBy(() => compiler('13')), all)
})

test('a library that is built starts without a compiler', async (t) => {
  const { build, compiler } = copyOfTree(t)
  compiler()
  await build()
  assert.deepEqual((await build('/nowhere')).code, 0)
})

test('a source that does not compile ends the build with its message', async (t) => {
  const { folder, build, compiler } = copyOfTree(t)
  compiler()
  writeFileSync(join(folder, 'engine/kernels/cpu/norm.cpp'), '#error')
  const { code, output } = await build()
  assert.equal(code, 1)
  assert.match(output, /norm\.cpp: broken/)
  assert.match(output, /g\+\+ failed \(exit code 1\) with the message above/)
  assert.ok(!existsSync(join(folder, 'build/libpagestream_cpu.so')))
})

test('ops are numbered in the order of their prototypes', () => {
  const prototypes = parseHeader(`
PS_API int32_t ps_malloc(ps_ctx ctx, uint64_t bytes, uint64_t* out_ptr);
PS_API const char* ps_last_error(void);
/* ---- ops begin ---- */
PS_API int32_t ps_add(ps_ctx ctx, ps_stream s, float eps);
/* ps_not_a_prototype(int x); */
PS_API int32_t ps_rope(ps_ctx ctx, ps_stream s);
/* ---- ops end ---- */
PS_API int32_t ps_later(ps_ctx ctx);`)
  assert.deepEqual(
    prototypes.map(({ name, op }) => [name, op]),
    [
      ['ps_malloc', null],
      ['ps_last_error', null],
      ['ps_add', 0],
      ['ps_rope', 1],
      ['ps_later', null],
    ],
  )
  assert.deepEqual(prototypes[0]!.parameters[2], { type: 'uint64_t*', name: 'out_ptr' })
  assert.equal(prototypes[1]!.returns, 'const char*')
})
