// Random operations on a pool, all verbs, several engines and gateways, run once on the embedded Redis and recorded with
// every reply. Time is a key that scripts read instead of the server's clock (`scriptedTime`), so the same record can be
// replayed on any server and must give the same bytes.
import type { EngineIdentity } from '../../queue/consume.ts'
import { append, beat, claim, reap, release } from '../../queue/consume.ts'
import { attach, cancel, enqueue, leave } from '../../queue/enqueue.ts'
import { encodeToken } from '../../queue/event.ts'
import { jobKey, journalKey, laneKey, poolKey } from '../../queue/keys.ts'
import { poolState } from '../../queue/models.ts'
import type { Argument, Redis, Reply } from '../../queue/redis.ts'
import { repair } from '../../queue/repair.ts'
import { loadScripts, type ScriptName, type Scripts } from '../../queue/scripts.ts'
import { makeEngine, makeJob, stop, tokens, usage } from './jobs.ts'

export type Operation =
  | { script: ScriptName; keys: string[]; args: Argument[] }
  | { script?: undefined; command: string; args: Argument[] }
export type Recorded = { operation: Operation; reply: Reply }

export const timeKey = '{time}'
const time = `local time = redis.call('HMGET', '${timeKey}', 's', 'us')`

/** The scripts as they are, but for where `time` comes from. */
export function scriptedTime(): Scripts {
  const real = loadScripts()
  const piece = /local time = redis\.call\('TIME'\)/
  for (const script of Object.values(real)) {
    if (/\bnow\b|'TIME'/.test(script.text.replace(/--\[\[[\s\S]*?\]\]|--.*/g, '')) && !piece.test(script.text)) {
      throw new Error(`${script.name}.lua does not take its time from include/time.lua`)
    }
  }
  return loadScripts({
    time: `${time}\nlocal now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function digits(number) return string.format('%.0f', number) end`,
  })
}

/** Every operation that goes through, with its reply. */
export function recording(redis: Redis, record: Recorded[]): Redis {
  const keep = async (operation: Operation, reply: Promise<Reply>): Promise<Reply> => {
    record.push({ operation, reply: await reply })
    return reply
  }
  return {
    command: (command, ...args) => keep({ command, args }, redis.command(command, ...args)),
    script: (script, keys, args) => keep({ script, keys, args }, redis.script(script, keys, args)),
    subscribe: (channel, listener) => redis.subscribe(channel, listener),
    onReconnect: (listener) => redis.onReconnect(listener),
    close: () => redis.close(),
  }
}

/** Numbers 0 <= x < n from a seed (Park and Miller). */
export function dice(seed: number): (n: number) => number {
  let state = (seed % 2_147_483_646) + 1
  return (n) => {
    state = (state * 48_271) % 2_147_483_647
    return state % n
  }
}

type Running = { id: string; epoch: string; engine: EngineIdentity; lengths: number[] }

export async function randomOperations(redis: Redis, seed: number, count: number): Promise<void> {
  const roll = dice(seed)
  const pick = <T>(list: readonly T[]): T => list[roll(list.length)]!
  const model = `model ${seed} {x}`
  const engines = [1, 2, 3].map((i) =>
    makeEngine(model, { id: `e${i}`, revision: i === 3 && seed % 2 === 0 ? 'rev2' : 'rev1', numerics: `n${i % 2}` }),
  )
  const ids: string[] = []
  let running: Running[] = []
  let micros = 1_700_000_000_000_000 + seed

  const advance = async () => {
    micros += roll(3) === 0 ? roll(900_000) : roll(2)
    await redis.command('HSET', timeKey, 's', Math.floor(micros / 1e6), 'us', micros % 1e6)
  }
  const verbs: (() => Promise<unknown>)[] = [
    () => {
      const id = roll(8) === 0 && ids.length > 0 ? pick(ids) : `j${ids.length}`
      if (!ids.includes(id)) ids.push(id)
      const job = makeJob({
        id,
        model,
        n: pick([1, 1, 1, 2, 3]),
        maxTokens: pick([1, 8, 500]),
        class: pick([0, 10, 99]),
        tenant: pick(['a', 'b', 'c/{d}', '']),
        revision: pick(['rev1', 'rev1', 'rev1', 'rev2']),
        gateway: pick(['g1', 'g2']),
        maxWaitMs: roll(4) === 0 ? 1 + roll(1500) : 0,
      })
      return enqueue(redis, job, { maxQueuedRequests: 30, maxQueuedTokens: 5000 })
    },
    async () => {
      const engine = pick(engines)
      const claimed = await claim(redis, engine, { tokens: roll(800), sequences: roll(6), prefixes: [] })
      if (roll(6) === 0) return // the reply is lost
      for (const { job, epoch, journal } of claimed) {
        running.push({ id: job.id, epoch, engine, lengths: journal.map((elements) => elements.length) })
      }
    },
    () => appendSome(),
    () => appendSome(),
    () => appendSome(),
    () => {
      const engine = pick(engines)
      const held = running.filter((one) => one.engine === engine && roll(9) > 0).map(({ id }) => id)
      return beat(redis, engine, held, roll(100), pick([200, 1000, 3000]))
    },
    () =>
      reap(
        redis,
        model,
        pick(['', '', 'g1', 'g2']),
        ids.filter(() => roll(5) === 0),
      ),
    () => {
      const engine = pick(engines)
      const given = running.filter((one) => one.engine === engine && roll(2) === 0)
      if (roll(4) > 0) running = running.filter((one) => !given.includes(one))
      return release(redis, engine, given)
    },
    () => (ids.length > 0 && roll(2) === 0 ? cancel(redis, model, pick(ids)) : Promise.resolve()),
    () => (ids.length > 0 ? leave(redis, model, pick(ids), pick(['g1', 'g2']), roll(2) === 0) : Promise.resolve()),
    () => {
      const reader = { gateway: pick(['g1', 'g2']), tenant: pick(['a', 'b', 'c/{d}', '']) }
      return ids.length > 0 ? attach(redis, model, pick(ids), reader) : Promise.resolve()
    },
    async () => {
      if (ids.length === 0 || roll(3) > 0) return
      const id = pick(ids)
      const [epoch] = (await redis.command('HMGET', jobKey(model, id), 'ep')) as [Buffer | null]
      const choices = [tokens(0, roll(5)).map(encodeToken)]
      const origin = roll(2) === 0 ? { job: makeJob({ id, model }), terms: {} } : undefined
      const holding = { id, model, gateway: 'g1', generation: roll(4), epoch: pick(['', '9', String(micros)]), choices }
      await repair(redis, { ...holding, seen: epoch?.toString() ?? '', pin: pick(['', 'rev1/n0']), origin })
    },
    () => poolState(redis, model),
    () => {
      const wanted = ids.filter(() => roll(4) === 0)
      const streams = wanted.flatMap((id): Argument[] => [
        id,
        pick([running[0]?.epoch ?? '0', '0', '7']),
        2,
        roll(4),
        roll(4),
      ])
      return redis.script('fetch', [poolKey(model)], [pick([1, 3, 512]), ...streams])
    },
    () => redis.command('XRANGE', laneKey(model, `${pick([0, 10, 99])}:rev1:t:a`), '-', '+'),
    () => redis.command('LRANGE', journalKey(model, ids.length > 0 ? pick(ids) : 'none', roll(2)), 0, -1),
    () =>
      redis.command(
        'HMGET',
        jobKey(model, ids.length > 0 ? pick(ids) : 'none'),
        'st',
        'own',
        'ep',
        'base',
        'end',
        'att',
      ),
  ]

  /** One step of one engine: new tokens, repeated ones, some beyond the end, some under a wrong epoch. */
  async function appendSome(): Promise<void> {
    const engine = pick(engines)
    const held = running.filter((one) => one.engine === engine && roll(3) > 0)
    const step = held.map(({ id, epoch, lengths }) => {
      const ends = roll(5) === 0
      const choices = lengths.map((length, choice) => {
        const from = Math.max(0, length + pick([0, 0, 0, 0, -1, -2, 1]))
        return { choice, from, tokens: tokens(from, from + 1 + roll(3)), ...(ends && { finish: stop }) }
      })
      const fails = roll(25) === 0
      const ending = fails ? { failed: { code: 'internal_error' as const, message: 'é "x"' } } : ends ? { usage } : {}
      return { id, epoch: roll(15) === 0 ? '123' : epoch, choices, ...ending }
    })
    const verdicts = await append(redis, engine, step)
    for (const [i, one] of held.entries()) {
      const verdict = verdicts[i]
      if (verdict === 'fenced') running = running.filter((other) => other !== one || roll(2) === 0)
      else if (typeof verdict === 'object') one.lengths = [...verdict.gapFrom]
      else if (verdict === 'ok') {
        for (const { choice, from, tokens, finish } of step[i]!.choices as {
          choice: number
          from: number
          tokens: unknown[]
          finish?: unknown
        }[]) {
          one.lengths[choice] = Math.max(one.lengths[choice]!, from + tokens.length + (finish ? 1 : 0))
        }
        if ('usage' in step[i]! || 'failed' in step[i]!)
          running = running.filter((other) => other !== one || roll(3) === 0)
      }
    }
  }

  for (let i = 0; i < count; i++) {
    await advance()
    await pick(verbs)()
  }
}
