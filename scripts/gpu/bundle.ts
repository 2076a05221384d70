// `node scripts/gpu/bundle.ts`: everything that an air-gapped x86-64 GPU host needs, in build/gpu/bundle.tar.xz: this
// tree, its packages, Node, redis-server with its libraries, and the kernels built here. There:
//   tar -xJf bundle.tar.xz && pagestream/run serve        or        pagestream/scripts/gpu/run.sh all
// Node runs the TypeScript as it is. The kernels are built again where nvcc is found.
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildKernels } from '../build.ts'
import { architectures, buildCuda, hasCudaCompiler } from '../kernels/cuda.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const limitBytes = 64 * 2 ** 20
const folder = join(root, 'build', 'gpu')
const app = join(folder, 'pagestream')
const wanted = [
  'engine',
  'gateway',
  'queue',
  'scripts',
  'test',
  'package.json',
  'tsconfig.json',
  'README.md',
  'LICENSE',
]

/** Packages of package-lock.json that run, not those that check; and of native ones, the files for this machine. */
function copyPackages(): void {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  for (const [path, { dev }] of Object.entries<{ dev?: boolean }>(lock.packages)) {
    const isNeeded = path.startsWith('node_modules/') && !dev && !/node-linux-|\/@types\//.test(path)
    // Optional ones for other machines are not installed. Packages inside packages come with them.
    if (!isNeeded || path.lastIndexOf('node_modules/') > 0 || !existsSync(join(root, path))) continue
    cpSync(join(root, path), join(app, path), { recursive: true, dereference: true, filter: isForThisMachine })
  }
}

function isForThisMachine(path: string): boolean {
  if (/\.(d\.[cm]?ts|map|md)$/.test(path)) return false
  const native = /tokenizers\.(.+)\.node$/.exec(path)
  return !native || native[1] === 'linux-x64-gnu'
}

/** A program with the libraries that a bare system lacks, started by a script that finds them. */
function copyProgram(path: string): void {
  const [bin, lib] = [join(app, 'bin'), join(app, 'lib')]
  for (const each of [bin, lib]) mkdirSync(each, { recursive: true })
  const linked = execFileSync('ldd', [path], { encoding: 'utf8' }).matchAll(/=> (\/\S+)/g)
  for (const [, library] of linked) {
    const comesWithSystem = /\/(libc|libm|libstdc\+\+|libgcc_s)\.so/.test(library!)
    if (!comesWithSystem) copyFileSync(library!, join(lib, basename(library!)))
  }
  copyFileSync(path, join(lib, basename(path)))
  const script = `#!/bin/sh\nhere=$(dirname "$0")/../lib\nLD_LIBRARY_PATH=$here exec "$here/${basename(path)}" "$@"\n`
  write(join(bin, basename(path)), script)
}

function write(path: string, text: string): void {
  writeFileSync(path, text)
  chmodSync(path, 0o755)
}

const found = (program: string) => execFileSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).trim()

const log = (line: string) => console.log(line)
const libraries = [await buildKernels({ log })]
if (await hasCudaCompiler()) libraries.push(await buildCuda({ log, targets: architectures }))
else log('nvcc is missing here: the bundle carries no CUDA library, and the GPU host must build it')

rmSync(folder, { recursive: true, force: true })
mkdirSync(join(app, 'bin'), { recursive: true })
for (const path of wanted) cpSync(join(root, path), join(app, path), { recursive: true })
copyPackages()
copyProgram(found('redis-server'))
execFileSync('strip', ['-s', process.execPath, '-o', join(app, 'bin', 'node')])
for (const library of libraries) {
  const backend = /libpagestream_(\w+)\.so/.exec(library)![1]!
  mkdirSync(join(app, 'build', backend), { recursive: true })
  cpSync(library, join(app, 'build', basename(library)))
  cpSync(join(dirname(library), backend, 'stamp'), join(app, 'build', backend, 'stamp'))
}
// HOME: the AWS SDK asks for it, and an empty environment has none.
write(
  join(app, 'run'),
  `#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
export PATH="$here/bin:$PATH" HOME="\${HOME:-$here}"
exec node "$here/scripts/cli.ts" "$@"
`,
)
const bundle = join(folder, 'bundle.tar.xz')
execFileSync('tar', ['-C', folder, '-I', 'xz -T2 -6', '-cf', bundle, 'pagestream'])
const bytes = statSync(bundle).size
log(`${bundle}: ${(bytes / 2 ** 20).toFixed(1)} MiB`)
if (bytes > limitBytes) {
  console.error(`the bundle is larger than ${limitBytes / 2 ** 20} MiB`)
  process.exitCode = 1
}
