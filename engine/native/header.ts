// pagestream.h read as data: its prototypes, and which of them are ops. scripts/build.ts generates the dispatch of the
// command list from it and native/library.ts the binding, so both number the ops alike.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

/** Types as written: int32_t, int64_t, uint64_t, float, ps_ctx, ps_stream, ps_ptr, ps_weight, pointers. */
export type Parameter = { type: string; name: string }

/** op: the id in a command list; null for a function that is not an op. */
export type Prototype = { name: string; returns: string; parameters: Parameter[]; op: number | null }

export const headerUrl = new URL('../kernels/pagestream.h', import.meta.url)

export function readHeader(): { prototypes: Prototype[]; hash: string } {
  const text = readFileSync(headerUrl, 'utf8')
  return { prototypes: parseHeader(text), hash: createHash('sha256').update(text).digest('hex') }
}

export function parseHeader(text: string): Prototype[] {
  const opsBegin = text.indexOf('-- ops begin')
  const opsEnd = text.indexOf('-- ops end')
  let ops = 0
  return [...text.matchAll(/^PS_API (.+?)\s*\b(ps_\w+)\(([^)]*)\);/gm)].map((match) => {
    const [, returns, name, parameters] = match as unknown as [string, string, string, string]
    const isOp = opsBegin < match.index && match.index < opsEnd
    return { name, returns, parameters: parseParameters(parameters), op: isOp ? ops++ : null }
  })
}

function parseParameters(text: string): Parameter[] {
  if (text === 'void') return []
  return text.split(', ').map((parameter) => {
    const space = parameter.lastIndexOf(' ')
    return { type: parameter.slice(0, space), name: parameter.slice(space + 1) }
  })
}
