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
  let at = 0
  for (const output of rest) {
    const token = output.type === 'token' ? output : undefined
    words[at] = Number(output.id)
    words[at + 1] = output.choice
    words[at + 2] = token?.token ?? NONE
    words[at + 3] = output.index
    words[at + 4] = FINISH.indexOf(output.finish)
    words[at + 5] = output.stopTokenId ?? NONE
    words[at + 6] = token?.cachedTokens ?? NONE
    words[at + 7] = token?.logprobs?.length ?? NONE
    at += WIDTH
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
    const finish = FINISH[word(4)]
    const records = word(7)
    const logprobs = records > 0 ? readLogprobs(packet, record, records) : []
    record += Math.max(0, records)
    if (id === undefined) continue
    const place = { id, choice: word(1), index: word(3) }
    const output: StepOutput =
      word(2) === NONE
        ? { type: 'finish', ...place, finish: finish ?? 'length' }
        : { type: 'token', ...place, token: word(2) }
    if (word(5) !== NONE) output.stopTokenId = word(5)
    if (output.type === 'token') {
      if (finish) output.finish = finish
      if (word(6) !== NONE) output.cachedTokens = word(6)
      if (records !== NONE) output.logprobs = logprobs
    }
    outputs.push(output)
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
