// What one step produced, packed for its way from the engine thread to the main thread: arrays of numbers instead of
// an object per token, because the structured clone of objects would cost more than all the rest of a step's
// bookkeeping. In the engine thread requests are called by numbers, which thread.ts gives them.
import type { StepOutput } from './engine.ts'

/** Words of one token or finish in `words`: handle, choice, token (-1: none), index, finish, stop token, cached tokens, log-probabilities. */
const WIDTH = 8
const FINISH = [undefined, 'stop', 'length'] as const
const NONE = -1

type Apart = StepOutput & { type: 'failed' | 'prompt' }

export type Packet = {
  words: Int32Array
  /** Per log-probability record: token and rank. */
  ranks: Int32Array
  logprobs: Float32Array
  /** Refusals and log-probabilities of prompts: rare, so sent as they are. */
  apart: Apart[]
}

export function pack(outputs: readonly StepOutput[]): Packet {
  const isApart = (output: StepOutput): output is Apart => output.type === 'failed' || output.type === 'prompt'
  const apart = outputs.filter(isApart)
  const rest = outputs.filter((output) => !isApart(output)) as Exclude<StepOutput, Apart>[]
  const records = rest.flatMap((output) => (output.type === 'token' ? (output.logprobs ?? []) : []))
  const words = new Int32Array(WIDTH * rest.length)
  for (const [i, output] of rest.entries()) {
    const isToken = output.type === 'token'
    words.set(
      [
        Number(output.id),
        output.choice,
        isToken ? output.token : NONE,
        output.index,
        FINISH.indexOf(output.finish),
        output.stopTokenId ?? NONE,
        (isToken ? output.cachedTokens : undefined) ?? NONE,
        (isToken ? output.logprobs?.length : undefined) ?? NONE,
      ],
      WIDTH * i,
    )
  }
  return {
    words,
    ranks: Int32Array.from(records.flatMap(({ id, rank }) => [id, rank])),
    logprobs: Float32Array.from(records, ({ logprob }) => logprob),
    apart,
  }
}

/** `idOf` gives undefined for a request that is gone; its outputs are dropped. */
export function unpack(packet: Packet, idOf: (handle: number) => string | undefined): StepOutput[] {
  const outputs: StepOutput[] = []
  for (const output of packet.apart) {
    const id = idOf(Number(output.id))
    if (id !== undefined) outputs.push({ ...output, id })
  }
  const { words } = packet
  let record = 0
  for (let at = 0; at < words.length; at += WIDTH) {
    const word = (field: number) => words[at + field] as number
    const id = idOf(word(0))
    const base = { choice: word(1), index: word(3), ...(word(5) !== NONE && { stopTokenId: word(5) }) }
    const finish = FINISH[word(4)]
    const records = word(7)
    const logprobs = records > 0 ? readLogprobs(packet, record, records) : []
    record += Math.max(0, records)
    if (id === undefined) continue
    if (word(2) === NONE) outputs.push({ type: 'finish', id, ...base, finish: finish ?? 'length' })
    else {
      outputs.push({
        type: 'token',
        id,
        token: word(2),
        ...base,
        ...(finish && { finish }),
        ...(word(6) !== NONE && { cachedTokens: word(6) }),
        ...(records !== NONE && { logprobs }),
      })
    }
  }
  return outputs
}

function readLogprobs({ ranks, logprobs }: Packet, first: number, count: number) {
  return Array.from({ length: count }, (_, k) => ({
    id: ranks[2 * (first + k)] as number,
    logprob: logprobs[first + k] as number,
    rank: ranks[2 * (first + k) + 1] as number,
  }))
}
