// Where the built libraries lie: build/ beside the sources or, where that may not be written (a package installed by
// root), a folder of the user's cache of its own for each installation. scripts/build.ts writes there, native/device.ts
// reads.
import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync, mkdirSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** emulated: the CUDA kernels on a CPU, for tests. */
export type Backend = 'cpu' | 'cuda' | 'emulated'

const root = fileURLToPath(new URL('../../', import.meta.url))

export function libraryFolders(): string[] {
  const installation = createHash('sha256').update(root).digest('hex').slice(0, 12)
  return [join(root, 'build'), join(homedir(), '.cache', 'pagestream', `kernels-${installation}`)]
}

export function libraryName(backend: Backend): string {
  return `libpagestream_${backend}.so`
}

/** The path of the library built last, or null. */
export function findLibrary(backend: Backend): string | null {
  const paths = libraryFolders().map((folder) => join(folder, libraryName(backend)))
  const built = paths.filter((path) => existsSync(path))
  return built.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0] ?? null
}

/** Creates the first folder that can be written. */
export function outputFolder(): string {
  for (const folder of libraryFolders()) {
    try {
      mkdirSync(folder, { recursive: true })
      accessSync(folder, constants.W_OK)
      return folder
    } catch {}
  }
  throw new Error(`no folder for the built kernels can be written; tried ${libraryFolders().join(' and ')}`)
}
