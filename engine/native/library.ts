// A kernel library, bound from its header: every prototype of pagestream.h becomes a function of the same name. Used by
// the rest of native/ only. koffi passes typed arrays by address and checks the number of arguments, not their range;
// whoever passes an integer that could be out of range checks it (ops.ts does for every op).
import koffi from 'koffi'
import { type Prototype, readHeader } from './header.ts'

export type NativeFunction = (...args: (number | string | NodeJS.ArrayBufferView | null)[]) => number | string

export type Library = {
  path: string
  prototypes: Map<string, Prototype>
  /** Calls the function; throws KernelError if it reports one. */
  call(name: string, ...args: Parameters<NativeFunction>): void
}

/** A kernel or the device refused. Never expected while serving: the engine's process ends with it. */
export class KernelError extends Error {
  readonly code: number

  constructor(name: string, code: number, message: string) {
    super(message.startsWith(name) ? message : `${name}: ${message}`)
    this.name = 'KernelError'
    this.code = code
  }
}

export function openLibrary(path: string): Library {
  const { prototypes, hash } = readHeader()
  const library = load(path)
  const bound = new Map<string, NativeFunction>()
  const bind = (prototype: Prototype): NativeFunction => {
    const parameters = prototype.parameters.map(({ type }) => koffiType(type))
    return library.func(prototype.name, koffiType(prototype.returns), parameters) as NativeFunction
  }
  const stale = `${path} was built from another pagestream.h; build it again: npm run kernels`
  try {
    for (const prototype of prototypes) bound.set(prototype.name, bind(prototype))
  } catch (error) {
    throw new Error(stale, { cause: error })
  }
  if (bound.get('ps_header_hash')!() !== hash) throw new Error(stale)

  const lastError = bound.get('ps_last_error')!
  return {
    path,
    prototypes: new Map(prototypes.map((prototype) => [prototype.name, prototype])),
    call(name, ...args) {
      const code = bound.get(name)!(...args) as number
      if (code !== 0) throw new KernelError(name, code, lastError() as string)
    },
  }
}

function load(path: string): ReturnType<typeof koffi.load> {
  try {
    return koffi.load(path)
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}; build it again: npm run kernels`, { cause: error })
  }
}

function koffiType(type: string): string {
  if (type === 'const char*') return 'str'
  if (type.endsWith('*')) return 'void *'
  if (type === 'int32_t') return 'int32'
  if (type === 'int64_t') return 'int64'
  if (type === 'float') return 'float'
  return 'uint64'
}
