// What a gateway does when Redis has lost a part of what the gateway holds (a restart from an older state, a replica that
// was promoted): it puts the delivered tokens, and if need be the job, back into the queue, where the work goes on from
// the last token the client has. Called by Streams.
import { jobArguments, type Terms } from './enqueue.ts'
import type { Job } from './job.ts'
import { poolKey } from './keys.ts'
import type { Argument, Redis } from './redis.ts'

/** A job as it was enqueued. */
export type Origin = { job: Job; terms: Terms }

export type Holding = {
  id: string
  model: string
  gateway: string
  generation: number
  /** Epoch of the state that is to be repaired; '' where the job is unknown. */
  seen: string
  /** Latest epoch the gateway knows. */
  epoch: string
  pin: string
  /** Delivered journal elements per choice. */
  choices: string[][]
  origin?: Origin | undefined
}

/** The new epoch; `changed`: the state is another by now, look again; `older`: a newer reader may repair, this one must
 * not; `impossible`: nobody has what it takes. */
export type Repair = { epoch: string } | 'changed' | 'older' | 'impossible'

export async function repair(redis: Redis, holding: Holding): Promise<Repair> {
  const { id, model, gateway, generation, seen, epoch, pin, choices, origin } = holding
  const args: Argument[] = [id, gateway, generation, seen, epoch === '' ? '0' : epoch, pin, choices.length]
  for (const elements of choices) args.push(elements.length, ...elements)
  if (origin) args.push(...jobArguments(origin.job, origin.terms))
  const reply = (await redis.script('repair', [poolKey(model)], args)) as Buffer | number
  if (typeof reply !== 'number') return { epoch: reply.toString() }
  if (reply === 0) return 'changed'
  return reply === -2 ? 'older' : 'impossible'
}
