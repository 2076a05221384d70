// `prepack`: makes dist/, what the npm package contains. Node does not strip types under node_modules, so the package
// holds JavaScript. dist/ mirrors the tree: files that code finds by a path relative to itself stay where they were.
import { execFileSync } from 'node:child_process'
import { cpSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Read at run time: Lua scripts, kernel sources for the compiler, the demo model, the version. */
const assets = ['queue/lua', 'engine/kernels', 'scripts/demo/model', 'scripts/demo/README.md', 'package.json']

rmSync(`${root}/dist`, { recursive: true, force: true })
execFileSync(process.execPath, [`${root}/node_modules/typescript/bin/tsc`, '-p', 'tsconfig.build.json'], {
  cwd: root,
  stdio: 'inherit',
})
for (const asset of assets) cpSync(`${root}/${asset}`, `${root}/dist/${asset}`, { recursive: true })

// tsc rewrites the extensions of imports, but not those of worker threads: new URL('./x.ts', import.meta.url).
for (const file of globSync(`${root}/dist/**/*.js`)) {
  const source = readFileSync(file, 'utf8')
  const rewritten = source.replace(/(new URL\(\s*['"]\.{1,2}\/[^'"]+)\.ts(['"])/g, '$1.js$2')
  if (rewritten !== source) writeFileSync(file, rewritten)
}
