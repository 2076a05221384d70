// `pagestream bench serve | throughput | latency`: the benchmarks of scripts/bench/.
import { systemClock } from '../../queue/clock.ts'
import { benchLatency, latencyHelp } from '../bench/latency.ts'
import { help as serveHelp } from '../bench/options.ts'
import { benchServe } from '../bench/serve.ts'
import { benchThroughput, throughputHelp } from '../bench/throughput.ts'
import { nearest, UsageError } from './flags.ts'

const benchmarks = {
  serve: { help: serveHelp, run: benchServe },
  throughput: { help: throughputHelp, run: benchThroughput },
  latency: { help: latencyHelp, run: benchLatency },
}
const isBenchmark = (name: string | undefined): name is keyof typeof benchmarks =>
  name !== undefined && Object.hasOwn(benchmarks, name)

export function help([what]: string[]): string {
  if (isBenchmark(what)) return benchmarks[what].help()
  return [
    'Usage: pagestream bench serve|throughput|latency [flags]',
    '  serve       loads a running server over HTTP',
    '  throughput  tokens per second of the engine alone, over many prompts',
    '  latency     seconds that one batch of prompts takes',
    'pagestream bench serve --help lists the flags of one.',
  ].join('\n')
}

export async function run([what, ...argv]: string[]): Promise<number> {
  if (isBenchmark(what)) return benchmarks[what].run(argv, systemClock)
  const near = what && nearest(what, Object.keys(benchmarks))
  const hint = near ? `; did you mean ${near}?` : ''
  throw new UsageError(`say: pagestream bench serve|throughput|latency [flags]${hint}`)
}
