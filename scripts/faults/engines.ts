// Rows of engines that die, freeze, drain and fill up. Clients must see every token once and no error.
import assert from 'node:assert/strict'
import type { Redis } from '../../queue/redis.ts'
import { ask, resumes } from './client.ts'
import { type Engine, LEASE_MS, metric, pause, until } from './lab.ts'
import { exact, greedy, launch, nothingLeft, type Row, reference } from './row.ts'

const RESUME_P99_MS = LEASE_MS + 1500

const worst = (resume: number[]) => Math.max(...resume)

const killMidDecode: Row = {
  id: 'F1',
  fault: 'kill -9 engine mid-decode, 50 streams, 2nd engine up',
  async run(lab) {
    await lab.startRedis()
    const first = await lab.engine()
    const gateway = await lab.gateway()
    const bodies = Array.from({ length: 50 }, (_, i) => greedy(i, 1500))
    const expected = await reference(gateway, bodies)
    const { started, all } = launch([gateway], bodies)
    await started
    const second = await lab.engine()
    const at = performance.now()
    await first.kill('SIGKILL')
    const answers = await all
    const resume = resumes(answers, at)
    const sum = exact(bodies, answers, expected)
    await nothingLeft(lab)
    assert.equal(resume.length, 50, 'streams that were under way when the engine died')
    assert.equal(await metric(second, 'pagestream_resumed_total'), 50, 'migrations')
    assert.ok(worst(resume) <= RESUME_P99_MS, `the slowest stream went on after ${worst(resume).toFixed(0)} ms`)
    return { ...sum, resume }
  },
}

const noSecondEngine: Row = {
  id: 'F2',
  fault: 'kill -9 the only engine; another comes 20 s later',
  async run(lab) {
    await lab.startRedis()
    const first = await lab.engine()
    const gateway = await lab.gateway()
    const bodies = Array.from({ length: 8 }, (_, i) => greedy(i, 1500))
    const expected = await reference(gateway, bodies)
    const { started, all } = launch([gateway], bodies)
    await started
    await first.kill('SIGKILL')
    await pause(20_000)
    await lab.engine()
    const answers = await all
    const sum = exact(bodies, answers, expected)
    for (const { comments } of answers) assert.ok(comments.length > 0, 'a silent stream must carry comments')
    await nothingLeft(lab)
    return { ...sum, says: `${answers[0]?.comments.length} comments in 20 s` }
  },
}

const noEngineEver: Row = {
  id: 'F2b',
  fault: 'kill -9 the only engine, none comes: an explicit error',
  quick: true,
  async run(lab) {
    await lab.startRedis()
    const engine = await lab.engine()
    const gateway = await lab.gateway({ flags: ['--request-timeout-ms', '3000'] })
    const { started, all } = launch([gateway], [greedy(0, 1900)])
    await started
    await engine.kill('SIGKILL')
    const [answer] = await all
    assert.equal(answer?.error, 'engine_unavailable')
    assert.equal(answer?.done, false, 'no [DONE] after an error')
    return { says: 'engine_unavailable' }
  },
}

const killInPrefill: Row = {
  id: 'F3',
  fault: 'kill -9 engine during prefill (0 tokens out)',
  async run(lab) {
    await lab.startRedis()
    const first = await lab.engine({ flags: ['--max-num-batched-tokens', '256'] })
    const gateway = await lab.gateway()
    const prompt = Array.from({ length: 1900 }, (_, i) => 300 + ((i * 7) % 1000))
    const bodies = Array.from({ length: 24 }, (_, i) => greedy(i, 60, { prompt: [...prompt, 400 + i] }))
    const answers = Promise.all(bodies.map((body) => ask(gateway.port, body)))
    await until(
      () => 'the prefill to begin',
      async () => (await metric(first, 'vllm:num_requests_running')) > 0,
    )
    await first.kill('SIGKILL')
    await lab.engine()
    const got = await answers
    const sum = exact(bodies, got, await reference(gateway, bodies))
    await nothingLeft(lab)
    return sum
  },
}

const drain: Row = {
  id: 'F5',
  fault: 'SIGTERM engine',
  async run(lab) {
    await lab.startRedis()
    const first = await lab.engine({ flags: ['--shutdown-timeout', '0'] })
    const gateway = await lab.gateway()
    const bodies = Array.from({ length: 20 }, (_, i) => greedy(i, 1200))
    const expected = await reference(gateway, bodies)
    const { started, all } = launch([gateway], bodies)
    await started
    await lab.engine()
    const at = performance.now()
    await first.kill('SIGTERM')
    const code = await first.exited
    const exitMs = performance.now() - at
    const answers = await all
    const sum = exact(bodies, answers, expected)
    assert.equal(code, 0, 'exit code')
    assert.ok(exitMs < 5000, `exited after ${exitMs.toFixed(0)} ms`)
    await nothingLeft(lab)
    return { ...sum, resume: resumes(answers, at), says: `exit 0 after ${exitMs.toFixed(0)} ms` }
  },
}

const killInDrain: Row = {
  id: 'F6',
  fault: 'SIGTERM engine, then SIGKILL in the drain',
  async run(lab) {
    await lab.startRedis()
    const first = await lab.engine()
    const gateway = await lab.gateway()
    const bodies = Array.from({ length: 20 }, (_, i) => greedy(i, 1200))
    const expected = await reference(gateway, bodies)
    const { started, all } = launch([gateway], bodies)
    await started
    await lab.engine()
    await first.kill('SIGTERM')
    await pause(50)
    const at = performance.now()
    await first.kill('SIGKILL')
    const answers = await all
    return { ...exact(bodies, answers, expected), resume: resumes(answers, at) }
  },
}

const freeze: Row = {
  id: 'F7',
  fault: 'engine SIGSTOPped 10 s, then wakes',
  async run(lab) {
    await lab.startRedis()
    const zombie = await lab.engine()
    const gateway = await lab.gateway()
    const bodies = Array.from({ length: 20 }, (_, i) => greedy(i, 1200))
    const expected = await reference(gateway, bodies)
    const { started, all } = launch([gateway], bodies)
    await started
    await lab.engine()
    const at = performance.now()
    await zombie.kill('SIGSTOP')
    await pause(10_000)
    await zombie.kill('SIGCONT')
    const answers = await all
    const sum = exact(bodies, answers, expected)
    await until(
      () => 'the woken engine to free its blocks',
      async () => (await metric(zombie, 'vllm:num_requests_running')) === 0,
      5000,
    )
    const resume = resumes(answers, at)
    assert.ok(worst(resume) <= RESUME_P99_MS, `the slowest stream went on after ${worst(resume).toFixed(0)} ms`)
    await nothingLeft(lab)
    return { ...sum, resume }
  },
}

const poolFull: Row = {
  id: 'F42',
  fault: 'KV exhaustion: prompts fill the pool',
  async run(lab) {
    await lab.startRedis()
    const roomy = await lab.engine()
    const gateway = await lab.gateway()
    const bodies = Array.from({ length: 12 }, (_, i) => greedy(i, 300))
    const expected = await reference(gateway, bodies)
    await roomy.kill('SIGTERM')
    await roomy.exited
    const tight = await lab.engine({ flags: ['--num-gpu-blocks-override', '24', '--max-model-len', '320'] })
    const answers = await Promise.all(bodies.map((body) => ask(gateway.port, body)))
    const sum = exact(bodies, answers, expected)
    await nothingLeft(lab)
    return { ...sum, says: `${await metric(tight, 'vllm:num_preemptions_total')} preemptions` }
  },
}

const poison: Row = {
  id: 'F10',
  fault: 'poison request (its engine dies at once) among 20 others',
  async run(lab) {
    await lab.startRedis()
    const engines = new Set<Engine>(await Promise.all([lab.engine(), lab.engine()]))
    const gateway = await lab.gateway()
    const redis = await lab.control()
    const bodies = Array.from({ length: 20 }, (_, i) => greedy(i, 1000))
    const expected = await reference(gateway, bodies)
    const { started, all } = launch([gateway], bodies)
    await started
    let over = false
    const victim = ask(gateway.port, greedy(0, POISON_TOKENS)).finally(() => {
      over = true
    })
    let deaths = 0
    const replacements: Promise<unknown>[] = []
    while (!over) {
      const owner = await ownerOf(redis, POISON_TOKENS)
      const engine = [...engines].find((each) => each.id() === owner)
      if (engine) {
        engines.delete(engine)
        await engine.kill('SIGKILL')
        deaths++
        replacements.push(lab.engine().then((fresh) => engines.add(fresh)))
      } else await pause(20)
    }
    const [answers, poisoned] = [await all, await victim]
    await Promise.all(replacements)
    const sum = exact(bodies, answers, expected)
    assert.equal(
      poisoned.error,
      'request_failed',
      `the poison killed ${deaths} engines and ended with ${poisoned.error}`,
    )
    assert.ok(deaths <= 4, `it took ${deaths} engines along`)
    await nothingLeft(lab)
    return { ...sum, says: `request_failed after ${deaths} engines` }
  },
}

/** A length that no other request asks for: by it the job is found in Redis. */
const POISON_TOKENS = 1777

/** The engine that runs the job with this `maxTokens`, if one does. */
async function ownerOf(redis: Redis, maxTokens: number): Promise<string | null> {
  for (const key of (await redis.command('KEYS', '{q:demo}:r:*')) as Buffer[]) {
    const [state, owner, spec] = (await redis.command('HMGET', key, 'st', 'own', 'spec')) as Buffer[]
    if (String(state) === 'r' && new RegExp(`"maxTokens":${maxTokens}\\b`).test(String(spec))) return String(owner)
  }
  return null
}

const dynamo: Row = {
  id: 'Dynamo',
  fault: '8 clients x 100 requests, engine killed in the middle',
  async run(lab) {
    await lab.startRedis()
    const [first] = await Promise.all([lab.engine(), lab.engine()])
    const gateway = await lab.gateway()
    const bodies = Array.from({ length: 800 }, (_, i) => greedy(i, 60))
    const expected = await reference(gateway, bodies)
    const answers: Awaited<ReturnType<typeof ask>>[] = new Array(800)
    let next = 0
    let killed = false
    const client = async () => {
      for (let i = next++; i < 800; i = next++) {
        if (i === 400 && !killed) {
          killed = true
          await first?.kill('SIGKILL')
        }
        answers[i] = await ask(gateway.port, bodies[i] as (typeof bodies)[0])
      }
    }
    await Promise.all(Array.from({ length: 8 }, client))
    const sum = exact(bodies, answers, expected)
    await nothingLeft(lab)
    return { ...sum, says: `${sum.failed} of 800 failed` }
  },
}

export const engineRows: Row[] = [
  killMidDecode,
  noSecondEngine,
  noEngineEver,
  killInPrefill,
  drain,
  killInDrain,
  freeze,
  poison,
  poolFull,
  dynamo,
]
