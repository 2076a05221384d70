// Jobs, engines and tokens for queue tests.
import type { Append, Claimed, EngineIdentity } from '../../queue/consume.ts'
import type { Event, Finish, Token, Usage } from '../../queue/event.ts'
import type { Job } from '../../queue/job.ts'

export const plenty = { maxQueuedRequests: 1000, maxQueuedTokens: 1_000_000 }
export const wide = { tokens: 1_000_000, sequences: 1000, prefixes: [] }
export const LEASE_MS = 200

type JobFields = Partial<Omit<Job, 'sampling'>> & { id: string; model: string; n?: number; maxTokens?: number }

/** Costs 10 KV tokens: 2 of prompt, 8 to come. */
export function makeJob({ n = 1, maxTokens = 8, ...fields }: JobFields): Job {
  return {
    revision: 'rev1',
    tenant: 'acme',
    gateway: `gateway-of-${fields.model}`,
    class: 10,
    adapter: 0,
    salt: '',
    prompt: new Uint32Array([1, 70_000]),
    maxWaitMs: 0,
    sampling: {
      n,
      maxTokens,
      minTokens: 0,
      temperature: 0,
      topP: 1,
      topK: 0,
      minP: 0,
      presencePenalty: 0,
      frequencyPenalty: 0,
      repetitionPenalty: 1,
      logitBias: [],
      allowedTokenIds: null,
      seed: '-42',
      stop: ['\n\n'],
      stopTokenIds: [],
      ignoreEos: false,
      includeStopString: false,
      skipSpecialTokens: true,
      logprobs: null,
    },
    ...fields,
  }
}

export function makeEngine(model: string, fields: Partial<EngineIdentity> = {}): EngineIdentity {
  return { id: 'engine-1', model, revision: 'rev1', numerics: 'cpu-plain', ...fields }
}

/** Token i says its own index, in more than one byte. */
export const token = (i: number): Token => ({ id: 100 + i, text: `é${i} ` })
export const tokens = (from: number, to: number): Token[] =>
  Array.from({ length: to - from }, (_, i) => token(from + i))
export const stop: Finish = { text: '.', reason: 'stop', stopReason: null }
export const usage: Usage = { promptTokens: 2, completionTokens: 8, cachedTokens: 0 }

/** One choice's tokens from..to-1, and at `end` its finish and the job's usage. */
export function step(claimed: Claimed, from: number, to: number, end = false): Append {
  const choice = { choice: 0, from, tokens: tokens(from, to), ...(end && { finish: stop }) }
  return { id: claimed.job.id, epoch: claimed.epoch, choices: [choice], ...(end && { usage }) }
}

/** What a client would have received: per choice the text, with the reason once it is finished. */
export class Received {
  readonly ids: number[][] = []
  readonly texts: string[] = []
  readonly finished: string[] = []
  ended: Extract<Event, { type: 'done' | 'failed' }> | null = null
  readonly violations: string[] = []

  listener = (event: Event): void => {
    if (this.ended) this.violations.push(`${event.type} after ${this.ended.type}`)
    if (event.type === 'done' || event.type === 'failed') {
      this.ended = event
      return
    }
    const { choice } = event
    this.ids[choice] ??= []
    this.texts[choice] ??= ''
    const ids = this.ids[choice]
    if (this.finished[choice]) this.violations.push(`${event.type} after the finish of choice ${choice}`)
    if (event.type === 'finish') {
      if (event.index !== ids.length) this.violations.push(`finish at ${event.index} of ${ids.length}`)
      this.finished[choice] = event.reason
      this.texts[choice] += event.text
      return
    }
    if (event.from !== ids.length) this.violations.push(`tokens from ${event.from} at ${ids.length}`)
    ids.push(...event.tokens.map(({ id }) => id))
    this.texts[choice] += event.tokens.map(({ text }) => text).join('')
  }
}
