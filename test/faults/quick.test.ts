// The quick rows of the fault matrix; `npm run faults` runs them all.
import { test } from 'node:test'
import { startRedisServer } from '../../queue/server.ts'
import { rows, runRow } from '../../scripts/faults.ts'

for (const row of rows.filter(({ quick }) => quick)) {
  test(`${row.id}: ${row.fault}`, { timeout: 120_000 }, async (t) => {
    const redis = await startRedisServer({ path: process.env.PATH ?? '' })
    if (!redis) return t.skip('redis-server is not installed (apt-get install redis-server)')
    await redis.close()
    await runRow(row)
  })
}
