// kill -9 at random tokens. Streams of every kind of sampling run side by side on two engines; when the chosen one has
// received its drawn number of tokens, the engine that holds it dies, and a fresh one takes its place. Every stream that
// was cut must end byte-identical to the unfaulted run: ids, texts, log-probabilities, finish reasons, usage.
import assert from 'node:assert/strict'
import { parseArgs } from 'node:util'
import { escapeName, jobKey } from '../../queue/keys.ts'
import { Random } from '../bench/random.ts'
import { type Answer, ask, type Body, compare, resumes } from './client.ts'
import { type Engine, Lab } from './lab.ts'
import { nothingLeft, type Row, reference } from './row.ts'

const LENGTH = 400

const kinds: Record<string, Body> = {
  greedy: { prompt: 'Pagestream is', temperature: 0, ignore_eos: true, max_tokens: LENGTH },
  seeded: { prompt: 'Once upon a time', temperature: 1, top_p: 0.95, seed: 7, ignore_eos: true, max_tokens: LENGTH },
  // No text ends at a string that never comes, but every token that may begin it is withheld.
  stop: {
    prompt: 'Water',
    temperature: 0.9,
    seed: 3,
    stop: ['e\u0000', ' the\u0000'],
    ignore_eos: true,
    max_tokens: LENGTH,
  },
  penalties: {
    prompt: 'A queue keeps',
    temperature: 0.8,
    seed: 11,
    presence_penalty: 0.7,
    frequency_penalty: 0.4,
    repetition_penalty: 1.1,
    ignore_eos: true,
    max_tokens: LENGTH,
  },
  n4: { prompt: 'The capital of', temperature: 1, seed: 5, n: 4, ignore_eos: true, max_tokens: LENGTH },
  logprobs: { prompt: 'Tokens', temperature: 1, seed: 9, logprobs: 3, ignore_eos: true, max_tokens: LENGTH },
  // Bytes of many-byte characters, one token each: a cut falls between them.
  bytes: { prompt: 'ü ☃ 漢字', temperature: 1.4, seed: 21, ignore_eos: true, max_tokens: LENGTH },
}

type Tally = { kills: number; cuts: Map<string, number>; wrong: string[]; resume: number[] }

/** Kills until `kills` engines have died; the tally says which streams were cut and which came out different. */
export async function killing(
  lab: Lab,
  kills: number,
  seed: number,
  { copies = 1, onKill = (_: Tally) => {} } = {},
): Promise<Tally> {
  const random = new Random(seed)
  const tally: Tally = { kills: 0, cuts: new Map(), wrong: [], resume: [] }
  await lab.startRedis()
  const redis = await lab.control()
  const gateway = await lab.gateway()
  const engines = new Set<Engine>(await Promise.all([lab.engine(), lab.engine()]))
  const names = Object.keys(kinds)
  const round = Array.from({ length: copies }, () => names).flat()
  const expected = await reference(gateway, Object.values(kinds))

  while (tally.kills < kills) {
    const target = tally.kills % round.length
    const cutAt = random.integer(1, LENGTH - 50)
    let death: Promise<{ at: number; held: Set<string> }> | null = null
    const kill = async (jobId: string) => {
      const owner = String(await redis.command('HGET', jobKey('demo', jobId), 'own'))
      const engine = [...engines].find((each) => each.id() === owner)
      assert.ok(engine, `engine ${owner} is not one of ours`)
      const held = (await redis.command('ZRANGE', `{q:${escapeName('demo')}}:held:${owner}`, 0, -1)) as Buffer[]
      engines.delete(engine)
      await engine.kill('SIGKILL')
      return { at: performance.now(), held: new Set(held.map(String)) }
    }
    const answers = await Promise.all(
      round.map((name, i) =>
        ask(gateway.port, kinds[name] as Body, {
          onToken: (answer) => {
            if (i === target && answer.times.length >= cutAt) death ??= kill(answer.id)
          },
        }),
      ),
    )
    const dead = (await death) as Awaited<ReturnType<typeof kill>> | null
    if (dead) {
      tally.kills++
      count(tally, round, answers, dead, expected)
      engines.add(await lab.engine())
      onKill(tally)
    }
  }
  await nothingLeft(lab)
  return tally
}

function count(
  tally: Tally,
  round: string[],
  answers: Answer[],
  { at, held }: { at: number; held: Set<string> },
  expected: Map<string, Answer>,
): void {
  for (const [i, answer] of answers.entries()) {
    const name = round[i] as string
    const difference = compare(answer, expected.get(JSON.stringify(kinds[name])) as Answer)
    const isSame = answer.done && difference.lost + difference.repeated + difference.wrong === 0
    if (!isSame) tally.wrong.push(`${name} (${JSON.stringify({ error: answer.error, ...difference })})`)
    if (!held.has(answer.id)) continue
    tally.cuts.set(name, (tally.cuts.get(name) ?? 0) + 1)
    tally.resume.push(...resumes([answer], at))
  }
}

const everyKind: Row = {
  id: 'F51',
  fault: 'n=4, logprobs, stop strings, penalties, characters cut at the fault',
  async run(lab) {
    return summary(await killing(lab, 3, 51))
  },
}

function summary({ kills, cuts, wrong, resume }: Tally) {
  const streams = [...cuts.values()].reduce((sum, count) => sum + count, 0)
  const list = [...cuts].map(([name, count]) => `${name} ${count}`).join(', ')
  assert.equal(wrong.length, 0, `${wrong.length} streams differ: ${wrong.slice(0, 5).join('; ')}`)
  return { streams, failed: 0, lost: 0, repeated: 0, resume, says: `${kills} kills cut ${list}` }
}

export const killRows: Row[] = [everyKind]

/** `node scripts/faults/kills.ts --kills 40 --seed 1` */
if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      kills: { type: 'string', default: '40' },
      seed: { type: 'string', default: '1' },
      copies: { type: 'string', default: '1' },
    },
  })
  const lab = new Lab()
  try {
    const { streams, resume, says } = summary(
      await killing(lab, Number(values.kills), Number(values.seed), {
        copies: Number(values.copies),
        onKill: ({ kills, cuts, wrong }) => {
          const cut = [...cuts.values()].reduce((sum, count) => sum + count, 0)
          console.log(`${kills} kills, ${cut} streams cut, ${wrong.length} different`)
        },
      }),
    )
    const sorted = resume.sort((a, b) => a - b)
    const at = (share: number) => ((sorted[Math.ceil(share * sorted.length) - 1] ?? 0) / 1000).toFixed(2)
    console.log(
      `${says}\n${streams} of ${streams} cut streams byte-identical; resume p50 ${at(0.5)} s, p99 ${at(0.99)} s`,
    )
  } finally {
    await lab.close()
  }
}
