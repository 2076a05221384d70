// Loads lua/<name>.lua, one command per file. A line `-- @include <piece>` is replaced by lua/include/<piece>.lua, so that
// shared pieces exist once and every server still sees one self-contained text. Real and embedded Redis run these same
// texts.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

export const scriptNames = [
  'enqueue',
  'attach',
  'claim',
  'append',
  'beat',
  'reap',
  'release',
  'cancel',
  'fetch',
  'repair',
  'remember',
  'pool',
] as const
export type ScriptName = (typeof scriptNames)[number]
export type Script = { name: ScriptName; text: string; sha: string }

function read(path: string): string {
  return readFileSync(new URL(`./lua/${path}.lua`, import.meta.url), 'utf8')
}

export type Scripts = Record<ScriptName, Script>

/** `pieces` stand in for files of lua/include; a test gives its own `time`. */
export function loadScripts(pieces: Record<string, string> = {}): Scripts {
  const load = (name: ScriptName): Script => {
    const include = (_: string, piece: string) => (pieces[piece] ?? read(`include/${piece}`)).trimEnd()
    const text = read(name).replace(/^-- @include (\w+)$/gm, include)
    return { name, text, sha: createHash('sha1').update(text).digest('hex') }
  }
  return Object.fromEntries(scriptNames.map((name) => [name, load(name)])) as Scripts
}
