// Where the built libraries lie: build/ beside the sources or, where that may not be written (a package installed by
// root), a folder of the user's cache of its own for each installation. scripts/build.ts writes there, native/device.ts
// reads.
import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync, mkdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export type Backend = 'cpu' | 'cuda'

const root = fileURLToPath(new URL('../../', import.meta.url))

function folders(): string[] {
  const installation = createHash('sha256').update(root).digest('hex').slice(0, 12)
  return [join(root, 'build'), join(homedir(), '.cache', 'pagestream', `kernels-${installation}`)]
}

export function libraryName(backend: Backend): string {
  return `libpagestream_${backend}.so`
}

/** The path of the built library, or null. */
export function findLibrary(backend: Backend): string | null {
  return (
    folders()
      .map((folder) => join(folder, libraryName(backend)))
      .find((path) => existsSync(path)) ?? null
  )
}

/** Creates the first folder that can be written. */
export function outputFolder(): string {
  for (const folder of folders()) {
    try {
      mkdirSync(folder, { recursive: true })
      accessSync(folder, constants.W_OK)
      return folder
    } catch {}
  }
  throw new Error(`no folder for the built kernels can be written; tried ${folders().join(' and ')}`)
}
