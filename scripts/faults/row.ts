// What a row of the fault matrix is, and how its streams are judged.
import assert from 'node:assert/strict'
import { poolState } from '../../queue/models.ts'
import { type Answer, ask, type Body, compare } from './client.ts'
import { type Lab, type Process, until } from './lab.ts'

/** Figures for the table; a row that does not hold throws. */
export type Outcome = {
  streams?: number
  failed?: number
  lost?: number
  repeated?: number
  /** ms from the fault to each stream's next token. */
  resume?: number[]
  says?: string
}

export type Row = {
  id: string
  fault: string
  /** Below ten seconds: part of `npm test`. */
  quick?: boolean
  run(lab: Lab): Promise<Outcome>
}

/** Distinct prompts, so that an answer that reached the wrong client would show. */
const prompts = ['Pagestream is', 'The capital of France', 'Once upon a time', 'A queue keeps', 'Water boils']

export function greedy(i: number, maxTokens: number, more: Record<string, unknown> = {}): Body {
  const prompt = prompts[i % prompts.length]
  return { prompt, max_tokens: maxTokens, temperature: 0, ignore_eos: true, ...more }
}

/** The answers without a fault, by the text of their requests. */
export async function reference(gateway: Process, bodies: Body[]): Promise<Map<string, Answer>> {
  const distinct = new Map(bodies.map((body) => [JSON.stringify(body), body]))
  const answers = await Promise.all(
    [...distinct].map(async ([key, body]) => [key, await ask(gateway.port, body)] as const),
  )
  for (const [, answer] of answers) assert.ok(answer.done, `the unfaulted run failed: ${JSON.stringify(answer.error)}`)
  return new Map(answers)
}

/** Asserts that every answer is the unfaulted one. */
export function exact(bodies: Body[], answers: Answer[], expected: Map<string, Answer>): Outcome {
  const sum = { streams: answers.length, failed: 0, lost: 0, repeated: 0 }
  let wrong = 0
  const reasons: string[] = []
  for (const [i, answer] of answers.entries()) {
    if (!answer.done || answer.error !== null) {
      sum.failed++
      reasons.push(answer.error ?? (answer.broken ? 'connection broken' : `status ${answer.status} without [DONE]`))
    }
    const difference = compare(answer, expected.get(JSON.stringify(bodies[i])) as Answer)
    sum.lost += difference.lost
    sum.repeated += difference.repeated
    wrong += difference.wrong
  }
  const says = `${sum.failed} failed (${[...new Set(reasons)].join(', ')}), ${sum.lost} lost, ${sum.repeated} repeated, ${wrong} otherwise different`
  assert.ok(sum.failed + sum.lost + sum.repeated + wrong === 0, says)
  return sum
}

/** Resolves once `count` of the streams have begun; answers come with `all`. */
export function launch(gateways: Process[], bodies: Body[], at = 20) {
  let begun = 0
  const started = Promise.withResolvers<void>()
  const all = Promise.all(
    bodies.map((body, i) =>
      ask((gateways[i % gateways.length] as Process).port, body, {
        onToken: (answer) => {
          if (answer.times.length === at && ++begun === bodies.length) started.resolve()
        },
      }),
    ),
  )
  // A stream that ended early must not keep the fault waiting for ever.
  all.then(() => started.resolve())
  return { started: started.promise, all }
}

/** Nothing is left in the queue: no job waits or runs, no entry is pending. */
export async function nothingLeft(lab: Lab, model = 'demo'): Promise<void> {
  const redis = await lab.control()
  let state = ''
  await until(
    () => `an empty queue: ${state}`,
    async () => {
      const pool = await poolState(redis, model)
      const lanes = (await redis.command('KEYS', `{q:${model}}:s:*`)) as Buffer[]
      state = `${pool.queued} queued, ${pool.running} running, ${lanes.length} lanes`
      return pool.queued + pool.running + lanes.length === 0
    },
    5000,
  )
}
