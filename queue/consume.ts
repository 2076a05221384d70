// The engine's verbs. An engine is a process life (uuid) with a lease; a job belongs to the engine that claimed it, under
// the epoch of that claim, until it ends, is released, or the lease runs out and reap moves it. Everything an engine
// says about a job names the epoch; said too late, it is FENCED.

import type { Finish, Token, Usage } from './event.ts'
import { decodeElement, type Element, encodeFinish, encodeToken, type FailureCode } from './event.ts'
import { decodeJob, type Job } from './job.ts'
import { bellChannel, engineChannel, escapeName, poolKey } from './keys.ts'
import type { Argument, Redis } from './redis.ts'

/** `id` is a uuid per process life: a restarted engine is another engine. */
export type EngineIdentity = { id: string; model: string; revision: string; numerics: string }

/** What the engine could take in now. One that holds nothing is given a job whatever its cost, or it would wait for ever. */
export type Room = { tokens: number; sequences: number; prefixes: string[] }

export type Claimed = {
  job: Job
  epoch: string
  /** Per choice, what already reached the journal: empty for new work, otherwise the sequence continues after it. */
  journal: Element[][]
}

/** Claims what fits, best first. Gives nothing to an engine without a lease: `beat` comes first. */
export async function claim(redis: Redis, engine: EngineIdentity, room: Room): Promise<Claimed[]> {
  const revision = escapeName(engine.revision)
  const pins = [revision, `${revision}/${escapeName(engine.numerics)}`]
  const entries = (await redis.script(
    'claim',
    [poolKey(engine.model)],
    [engine.id, ...pins, Math.max(0, Math.floor(room.tokens)), Math.max(0, room.sequences), ...room.prefixes],
  )) as [id: Buffer, epoch: Buffer, prompt: Buffer, spec: Buffer, ...journal: Buffer[][]][]

  const claimed: Claimed[] = []
  for (const [id, epoch, prompt, spec, ...journal] of entries) {
    try {
      const job = decodeJob({ prompt, spec: spec.toString() })
      const elements = journal.map((choice) => choice.map((element) => decodeElement(element.toString())))
      claimed.push({ job, epoch: epoch.toString(), journal: elements })
    } catch (error) {
      // Not a job: no engine could run it, so it ends here, with a reason, instead of going round.
      const message = `the queue entry is malformed: ${(error as Error).message}`
      const failed = { code: 'internal_error' as const, message }
      await append(redis, engine, [{ id: id.toString(), epoch: epoch.toString(), choices: [], failed }])
    }
  }
  return claimed
}

/** What one step produced for one job. The gateway is not named here: the job's hash knows who reads it. */
export type Append = {
  id: string
  epoch: string
  /** `from` is the index of the first of these tokens, which is how many came before it in this choice. */
  choices: { choice: number; from: number; tokens: Token[]; finish?: Finish }[]
  /** With the last choice's finish: the job is done. */
  usage?: Usage
  /** Instead: the job has failed for good. */
  failed?: { code: FailureCode; message: string }
}

/** `ok`: in the journal, now or before. `fenced`: no longer this engine's, drop it. `gapFrom`: the journal is shorter
 * than the engine thought (Redis lost its tail); nothing was written, send again from these indexes, one per choice. */
export type Verdict = 'ok' | 'fenced' | { gapFrom: number[] }

/** Writes a whole engine step: journal, wake-up of the gateways, end of finished jobs. May be repeated. */
export async function append(redis: Redis, engine: EngineIdentity, step: Append[]): Promise<Verdict[]> {
  if (step.length === 0) return []
  const args: Argument[] = [engine.id]
  for (const entry of step) {
    const start = args.length
    const [state, ending] = encodeEnding(entry)
    args.push(entry.id, entry.epoch, 0, state, ending)
    for (const { choice, from, tokens, finish } of entry.choices) {
      args.push(choice, from, tokens.length + (finish ? 1 : 0))
      for (const token of tokens) args.push(encodeToken(token))
      if (finish) args.push(encodeFinish(finish))
    }
    args[start + 2] = args.length + 1 // Lua's index of the next entry
  }
  const verdicts = (await redis.script('append', [poolKey(engine.model)], args)) as (number | number[])[]
  return verdicts.map((verdict) => {
    if (Array.isArray(verdict)) return { gapFrom: verdict }
    return verdict === 1 ? 'ok' : 'fenced'
  })
}

function encodeEnding({ usage, failed }: Append): [state: string, ending: string] {
  if (failed) return ['f', JSON.stringify(failed)]
  return usage ? ['d', JSON.stringify({ usage })] : ['', '']
}

/** Renews the lease; says which of the held jobs to drop (cancelled, or moved meanwhile); gives back to the queue what
 * Redis thinks this engine holds and it does not (the reply to its claim was lost). `steps` counts engine steps. */
export async function beat(
  redis: Redis,
  engine: EngineIdentity,
  held: string[],
  steps: number,
  leaseMs: number,
): Promise<{ cancelled: string[] }> {
  const cancelled = (await redis.script(
    'beat',
    [poolKey(engine.model)],
    [engine.id, leaseMs, steps, engine.revision, engine.numerics, ...held],
  )) as Buffer[]
  return { cancelled: cancelled.map(String) }
}

/** Moves the work of engines whose lease ran out back to the queue, and fails waiting jobs past their deadline. Any
 * engine or gateway runs it, as often as it likes. Returns how many jobs it touched. A gateway says thereby that it
 * lives, and which ended jobs it is still `reading`. */
export async function reap(redis: Redis, model: string, gateway = '', reading: string[] = []): Promise<number> {
  return (await redis.script('reap', [poolKey(model)], [gateway, ...reading])) as number
}

/** Drain: back to the queue, ahead of new work, without a strike. */
export async function release(
  redis: Redis,
  engine: EngineIdentity,
  held: { id: string; epoch: string }[],
): Promise<void> {
  await redis.script('release', [poolKey(engine.model)], [engine.id, ...held.flatMap(({ id, epoch }) => [id, epoch])])
}

/** Rings when there may be something to claim. A bell may be missed: poll too, slowly. */
export function doorbell(redis: Redis, model: string, ring: () => void): Promise<() => void> {
  return redis.subscribe(bellChannel(model), ring)
}

/** What an engine must hear before its next beat. */
export function control(
  redis: Redis,
  engineId: string,
  on: (message: { cancel: string }) => void,
): Promise<() => void> {
  return redis.subscribe(engineChannel(engineId), (message) => on(JSON.parse(message.toString())))
}
