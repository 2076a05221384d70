// `npm run faults -- [F1 F2 …]`: rows of the fault matrix with real processes, a real Redis and real signals; without
// names all of them, `--quick` those that npm test runs, `--verbose` with the whole error. Prints one table row per fault; exit code 1 when one fails.
import { engineRows } from './faults/engines.ts'
import { gatewayRows } from './faults/gateways.ts'
import { killRows } from './faults/kills.ts'
import { Lab } from './faults/lab.ts'
import { redisRows } from './faults/redis.ts'
import type { Outcome, Row } from './faults/row.ts'

export const rows: Row[] = [...engineRows, ...redisRows, ...gatewayRows, ...killRows]

export async function runRow(row: Row): Promise<Outcome> {
  const lab = new Lab()
  try {
    return await row.run(lab)
  } finally {
    await lab.close()
  }
}

function percentile(values: number[], share: number): string {
  const sorted = [...values].sort((a, b) => a - b)
  return ((sorted[Math.ceil(share * sorted.length) - 1] ?? 0) / 1000).toFixed(2)
}

function print(cells: (string | number)[]): void {
  const widths = [7, 6, 56, 7, 6, 6, 8, 8, 8]
  console.log(cells.map((cell, i) => String(cell).padEnd(widths[i] ?? 0)).join(' '))
}

async function main(args: string[]): Promise<number> {
  const wanted = args.filter((arg) => !arg.startsWith('--')).map((arg) => arg.toLowerCase())
  const unknown = wanted.filter((id) => !rows.some((row) => row.id.toLowerCase() === id))
  if (unknown.length > 0) {
    console.error(`no such row: ${unknown.join(', ')}; there are ${rows.map(({ id }) => id).join(' ')}`)
    return 2
  }
  const chosen = rows.filter(
    ({ id, quick }) =>
      (wanted.length === 0 || wanted.includes(id.toLowerCase())) && (quick || !args.includes('--quick')),
  )
  print(['row', 'result', 'fault', 'streams', 'failed', 'lost', 'repeated', 'p50 s', 'p99 s', 'seconds, remarks'])
  let failures = 0
  for (const row of chosen) {
    const start = performance.now()
    const seconds = () => ((performance.now() - start) / 1000).toFixed(1)
    try {
      const { streams = '', failed = '', lost = '', repeated = '', resume = [], says = '' } = await runRow(row)
      const times = resume.length > 0 ? [percentile(resume, 0.5), percentile(resume, 0.99)] : ['', '']
      print([row.id, 'ok', row.fault, streams, failed, lost, repeated, ...times, `${seconds()}  ${says}`])
    } catch (error) {
      failures++
      const [line = ''] = (error as Error).message.split('\n')
      print([row.id, 'FAIL', row.fault, '', '', '', '', '', '', `${seconds()}  ${line}`])
      if (args.includes('--verbose')) console.error((error as Error).stack)
    }
  }
  console.log(`${chosen.length - failures} of ${chosen.length} rows hold`)
  return failures === 0 ? 0 : 1
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)))
