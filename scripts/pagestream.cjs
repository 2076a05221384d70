#!/usr/bin/env node
// The `pagestream` command. Plain CommonJS, so that it starts on an old Node: it finds a Node >= 24 and runs the CLI
// with it, scripts/cli.ts in a checkout (Node strips the types), dist/scripts/cli.js in the installed package.
'use strict'
const { spawn } = require('node:child_process')
const path = require('node:path')
const { pathToFileURL } = require('node:url')
const { prepare, isCheckout } = require('./check-node.cjs')

const entry = path.join(__dirname, isCheckout ? 'cli.ts' : '../dist/scripts/cli.js')

function runIn(node) {
  const child = spawn(node, [entry, ...process.argv.slice(2)], { stdio: 'inherit' })
  // A terminal sends Ctrl-C to the child as well; forwarding it there would count as the second, forcing signal.
  process.on('SIGINT', () => process.stdin.isTTY || child.kill('SIGINT'))
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  child.on('close', (code, signal) => process.exit(signal ? 1 : code))
}

prepare()
  .then((node) => (node === process.execPath ? import(pathToFileURL(entry)) : runIn(node)))
  .catch((error) => {
    console.error(`pagestream: ${error.message}`)
    process.exit(1)
  })
