import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createEmbeddedRedis } from '../../queue/embedded.ts'
import { gatewayChannel } from '../../queue/keys.ts'
import { connectRedis, type Redis, type Reply } from '../../queue/redis.ts'
import { ManualClock } from './clock.ts'
import { type Operation, type Recorded, randomOperations, recording, scriptedTime } from './recorder.ts'
import { noServer, testServer } from './servers.ts'

/** `QUEUE_SEEDS=100 node --test …` replays 100,000 operations and more. */
const SEEDS = Number(process.env.QUEUE_SEEDS ?? 16)
const PER_SEED = 900

const run = (redis: Redis, operation: Operation): Promise<Reply> =>
  operation.script
    ? redis.script(operation.script, operation.keys, operation.args)
    : redis.command(operation.command, ...operation.args)

/** Replies and messages as comparable text. */
const plain = (value: unknown): string =>
  JSON.stringify(value, (_, part) => (part?.type === 'Buffer' ? Buffer.from(part.data).toString('latin1') : part))

async function listen(redis: Redis): Promise<string[]> {
  const heard: string[] = []
  for (const gateway of ['g1', 'g2']) {
    await redis.subscribe(gatewayChannel(gateway), (message) => heard.push(`${gateway} ${message.toString('latin1')}`))
  }
  return heard
}

const server = await testServer()

test('a record of random operations on the embedded Redis is the same, byte for byte, on a real server', {
  skip: server === null && noServer,
}, async (t) => {
  const real = await connectRedis(server!.url, { scripts: scriptedTime() })
  t.after(async () => {
    await real.close()
    await server!.close()
  })
  const onReal = await listen(real)
  let operations = 0
  for (let seed = 1; seed <= SEEDS; seed++) {
    const embedded = createEmbeddedRedis(new ManualClock(), scriptedTime())
    const onEmbedded = await listen(embedded)
    const record: Recorded[] = []
    await randomOperations(recording(embedded, record), seed, PER_SEED)
    operations += record.length

    onReal.length = 0
    const replies = await Promise.all(record.map(({ operation }) => run(real, operation)))
    for (const [i, { operation, reply }] of record.entries()) {
      assert.equal(plain(replies[i]), plain(reply), `seed ${seed}, operation ${i}: ${plain(operation)}`)
    }
    await real.command('PUBLISH', gatewayChannel('g1'), 'end')
    while (onReal.at(-1) !== 'g1 end') await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(onReal.slice(0, -1), onEmbedded, `messages of seed ${seed}`)
    assert.equal(await real.command('DBSIZE'), await embedded.command('DBSIZE'), `keys left by seed ${seed}`)
    await real.command('FLUSHALL')
  }
  t.diagnostic(`${operations} operations, all equal`)
  assert.ok(operations > 20_000)
})
