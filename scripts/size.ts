// Prints lines per file of the project's own code, largest last, with median and total per folder. Exit code 1 when a
// file is over the limit of the house: 400 lines, 500 for CUDA. `npm run size`; shown in every review.
import { globSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const limits: Record<string, number> = { cu: 500 }
const defaultLimit = 400
const wince = 250

export type Size = { file: string; lines: number }

export function measure(root: string): Size[] {
  const folders = '{gateway,engine,queue,infra,scripts,test}'
  return globSync(`${folders}/**/*.{ts,cjs,lua,h,hpp,cpp,cu,cuh}`, { cwd: root })
    .map((file) => ({ file, lines: readFileSync(`${root}/${file}`, 'utf8').trimEnd().split('\n').length }))
    .sort((a, b) => a.lines - b.lines)
}

export function tooLong({ file, lines }: Size): boolean {
  return lines > (limits[file.split('.').at(-1) as string] ?? defaultLimit)
}

function table(sizes: Size[]): string {
  const rows = sizes
    .filter(({ lines }) => lines > wince)
    .map(({ file, lines }) => `${String(lines).padStart(6)}  ${file}`)
  const folders = [...new Set(sizes.map(({ file }) => file.split('/')[0] as string))].sort()
  const sums = [...folders, 'all'].map((folder) => {
    const own = sizes.filter(({ file }) => folder === 'all' || file.startsWith(`${folder}/`)).map(({ lines }) => lines)
    const total = own.reduce((sum, lines) => sum + lines, 0)
    const median = own[Math.floor(own.length / 2)]
    return `${folder.padEnd(10)}${String(own.length).padStart(6)}${String(total).padStart(8)}${String(median).padStart(8)}${String(own.at(-1)).padStart(9)}`
  })
  return [`over ${wince} lines:`, ...rows, '', 'folder     files   lines  median  largest', ...sums].join('\n')
}

if (import.meta.main) {
  const sizes = measure(fileURLToPath(new URL('..', import.meta.url)))
  console.log(table(sizes))
  for (const size of sizes.filter(tooLong)) {
    console.error(`${size.file} has ${size.lines} lines: split it`)
    process.exitCode = 1
  }
}
