// A client that believes nothing: reads a stream raw, notes when each token came, and says how it ended. A stream counts
// as exact when its tokens, texts, log-probabilities, finish reasons and usage equal those of the unfaulted run.
import { type ClientRequest, request } from 'node:http'

export type Body = Record<string, unknown> & { max_tokens: number }

export type Answer = {
  status: number
  /** Per choice. */
  ids: number[][]
  texts: string[]
  logprobs: unknown[][]
  finish: (string | null)[]
  usage: Record<string, unknown> | null
  done: boolean
  /** Code of the error that the stream, or the whole answer, ended with. */
  error: string | null
  /** The connection broke before the answer was complete. */
  broken: boolean
  /** performance.now() of each token. */
  times: number[]
  comments: number[]
  id: string
  headers: NodeJS.Dict<string | string[]>
  ms: number
}

export type AskOptions = {
  headers?: Record<string, string>
  onToken?: (answer: Answer, request: ClientRequest) => void
  path?: string
}

type Chunk = {
  id?: string
  choices?: { index: number; text: string; finish_reason: string | null; logprobs: unknown; token_ids?: number[] }[]
  usage?: Record<string, unknown> | null
  error?: { code?: string; type?: string }
}

export function ask(port: number, body: Body, options: AskOptions = {}): Promise<Answer> {
  const start = performance.now()
  const streamed = { stream: true, stream_options: { include_usage: true }, return_token_ids: true }
  const payload = JSON.stringify({ model: 'demo', ...streamed, ...body })
  const answer: Answer = {
    status: 0,
    ids: [],
    texts: [],
    logprobs: [],
    finish: [],
    usage: null,
    done: false,
    error: null,
    broken: false,
    times: [],
    comments: [],
    id: '',
    headers: {},
    ms: 0,
  }
  return new Promise((resolve) => {
    const finish = (broken: boolean) => {
      answer.broken = broken
      answer.ms = performance.now() - start
      resolve(answer)
    }
    const outgoing = request(
      {
        port,
        host: '127.0.0.1',
        method: 'POST',
        path: options.path ?? '/v1/completions',
        headers: { 'content-type': 'application/json', ...options.headers },
        agent: false,
      },
      (incoming) => {
        answer.status = incoming.statusCode ?? 0
        answer.headers = incoming.headers
        let pending = ''
        incoming.setEncoding('utf8')
        incoming.on('data', (text: string) => {
          pending += text
          const lines = pending.split('\n')
          pending = lines.pop() ?? ''
          for (const line of lines) if (line !== '') take(answer, line, () => options.onToken?.(answer, outgoing))
        })
        incoming.on('error', () => finish(true))
        incoming.on('end', () => {
          if (pending.startsWith('{')) note(answer, JSON.parse(pending) as Chunk)
          finish(!incoming.complete)
        })
      },
    )
    outgoing.on('error', () => finish(true))
    outgoing.end(payload)
  })
}

function take(answer: Answer, line: string, onToken: () => void): void {
  if (line.startsWith(':')) answer.comments.push(performance.now())
  else if (line === 'data: [DONE]') answer.done = true
  else if (line.startsWith('data: ') && note(answer, JSON.parse(line.slice(6)) as Chunk)) onToken()
}

/** Whether a token came. */
function note(answer: Answer, chunk: Chunk): boolean {
  if (chunk.error) answer.error = chunk.error.code ?? chunk.error.type ?? 'error'
  if (chunk.usage) answer.usage = chunk.usage
  if (chunk.id) answer.id = chunk.id
  let tokens = 0
  for (const { index, text, finish_reason, logprobs, token_ids = [] } of chunk.choices ?? []) {
    answer.ids[index] ??= []
    answer.logprobs[index] ??= []
    answer.ids[index].push(...token_ids)
    answer.texts[index] = (answer.texts[index] ?? '') + text
    if (logprobs) answer.logprobs[index].push(logprobs)
    answer.finish[index] = finish_reason ?? answer.finish[index] ?? null
    tokens += token_ids.length
  }
  if (tokens > 0) answer.times.push(performance.now())
  return tokens > 0
}

export type Difference = { lost: number; repeated: number; wrong: number }

/** How an answer deviates from the unfaulted one, in tokens; `wrong` counts anything else that differs. */
export function compare(actual: Answer, expected: Answer): Difference {
  const difference = { lost: 0, repeated: 0, wrong: 0 }
  for (const [choice, ids] of expected.ids.entries()) {
    const got = actual.ids[choice] ?? []
    if (got.length < ids.length) difference.lost += ids.length - got.length
    if (got.length > ids.length) difference.repeated += got.length - ids.length
    const isPrefix = got.slice(0, ids.length).every((id, i) => id === ids[i])
    if (!isPrefix) difference.wrong++
  }
  const { prompt_tokens_details: _, ...usage } = expected.usage ?? {}
  const { prompt_tokens_details: __, ...actualUsage } = actual.usage ?? {}
  const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b)
  if (!same(actual.texts, expected.texts) || !same(actual.finish, expected.finish)) difference.wrong++
  if (!same(actual.logprobs, expected.logprobs) || !same(actualUsage, usage)) difference.wrong++
  return difference
}

/** ms from `at` to the token that ended the silence the fault made, of the streams that were under way then. What was
 * on its way to the client when it happened still arrives, so the silence may begin a moment later. */
export function resumes(answers: Answer[], at: number): number[] {
  return answers.flatMap(({ times }) => {
    if ((times[0] ?? Number.POSITIVE_INFINITY) > at || (times.at(-1) ?? 0) <= at) return []
    const next = times.findIndex((time) => time > at)
    let end = next
    for (let i = next; i < times.length && (times[i - 1] ?? 0) < at + IN_FLIGHT_MS; i++) {
      if (gapBefore(times, i) > gapBefore(times, end)) end = i
    }
    return [(times[end] ?? 0) - at]
  })
}

const IN_FLIGHT_MS = 300
const gapBefore = (times: number[], i: number) => (times[i] ?? 0) - (times[i - 1] ?? 0)

/** Longest silence between two tokens. */
export function longestGap({ times }: Answer): number {
  return times.reduce((longest, _, i) => (i === 0 ? 0 : Math.max(longest, gapBefore(times, i))), 0)
}
