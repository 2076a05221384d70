// The commands of `pagestream`. Each is a module with `help()` and `run(argv)` giving the exit code, loaded when it is
// called. A mistake of the user is one line and code 2; any other failure is its message and code 1.
import { readFileSync } from 'node:fs'
import { nearest, UsageError } from './cli/flags.ts'

type Command = { help(argv: string[]): string; run(argv: string[]): Promise<number> }

const commands: Record<string, { summary: string; load(): Promise<Command> }> = {
  serve: { summary: 'gateway, queue and engine in one process', load: () => import('./cli/serve.ts') },
  gateway: { summary: 'a gateway alone, beside a Redis', load: () => import('./cli/gateway.ts') },
  engine: { summary: 'an engine alone, beside a Redis', load: () => import('./cli/engine.ts') },
  keys: { summary: 'make an API key', load: () => import('./cli/keys.ts') },
  bench: {
    summary: 'measure a server (serve) or the engine alone (throughput, latency)',
    load: () => import('./cli/bench.ts'),
  },
  verify: { summary: 'compare a model with golden outputs', load: () => import('./cli/verify.ts') },
  chat: { summary: 'talk to a server in the terminal', load: () => import('./chat.ts') },
}

function overview(): string {
  const rows = Object.entries(commands).map(([name, { summary }]) => `  ${name.padEnd(10)}${summary}`)
  return `Usage: pagestream COMMAND [flags]\n\n${rows.join('\n')}\n\npagestream COMMAND --help lists the flags of a command.`
}

async function main([name, ...argv]: string[]): Promise<number> {
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    console.log(overview())
    return name === undefined ? 2 : 0
  }
  if (name === '--version' || name === '-v') {
    console.log(JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version)
    return 0
  }
  const command = commands[name]
  if (!command) {
    const near = nearest(name, Object.keys(commands))
    throw new UsageError(`unknown command ${name}${near ? `; did you mean ${near}?` : ''} (--help lists all)`)
  }
  const { help, run } = await command.load()
  if (argv.includes('--help') || argv.includes('-h')) {
    console.log(help(argv))
    return 0
  }
  return run(argv)
}

/** Programming errors keep their stack; what a user can cure is its message. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const isBug = error instanceof TypeError || error instanceof ReferenceError || error.name === 'AssertionError'
  return (isBug && error.stack) || error.message
}

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error) => {
    for (const line of describe(error).split('\n')) console.error(`pagestream: ${line}`)
    process.exit(error instanceof UsageError ? 2 : 1)
  },
)
