// One streamed request, timed. A token's time is when its bytes reached this process; a chunk without text (the role
// chunk, the usage chunk) is no token.
import { type Dispatcher, request } from 'undici'
import type { Sample } from './dataset.ts'
import type { Options } from './options.ts'

export type Measurement = {
  success: boolean
  error: string
  inputTokens: number
  outputTokens: number
  /** Seconds since the start of the run. */
  start: number
  ttft: number
  itl: number[]
  latency: number
  text: string
}

type Chunk = {
  error?: { message?: string }
  choices?: {
    text?: string
    delta?: { content?: string | null; reasoning_content?: string | null; reasoning?: string | null }
  }[]
  usage?: { prompt_tokens: number; completion_tokens: number } | null
}

export type Target = {
  url: string
  model: string
  headers: Record<string, string>
  dispatcher: Dispatcher
  seconds: () => number
}

function requestBody(options: Options, model: string, sample: Sample): Record<string, unknown> {
  const chat = options.backend === 'openai-chat'
  const body: Record<string, unknown> = {
    model,
    ...(chat ? { messages: [{ role: 'user', content: sample.prompt }] } : { prompt: sample.prompt }),
    [chat ? 'max_completion_tokens' : 'max_tokens']: sample.outputTokens,
    temperature: options.temperature,
    stream: true,
    stream_options: { include_usage: true },
  }
  if (options['ignore-eos']) body.ignore_eos = true
  if (options.logprobs !== undefined)
    Object.assign(body, chat ? { logprobs: true, top_logprobs: options.logprobs } : { logprobs: options.logprobs })
  for (const name of [
    'top-p',
    'top-k',
    'min-p',
    'frequency-penalty',
    'presence-penalty',
    'repetition-penalty',
  ] as const)
    if (options[name] !== undefined) body[name.replaceAll('-', '_')] = options[name]
  return Object.assign(body, options['extra-body'])
}

export async function send(options: Options, target: Target, sample: Sample, id: string): Promise<Measurement> {
  const start = target.seconds()
  const result: Measurement = {
    success: false,
    error: '',
    inputTokens: sample.inputTokens,
    outputTokens: 0,
    start,
    ttft: 0,
    itl: [],
    latency: 0,
    text: '',
  }
  let last = start
  let chunks = 0
  let finished = false

  const onData = (data: string) => {
    if (data.startsWith('[DONE]')) {
      finished = true
      return
    }
    const chunk = JSON.parse(data) as Chunk
    if (chunk.error) throw new Error(chunk.error.message ?? 'error in the stream')
    if (chunk.usage) {
      result.outputTokens = chunk.usage.completion_tokens
      result.inputTokens = chunk.usage.prompt_tokens
    }
    const choice = chunk.choices?.[0]
    const text = choice?.text ?? choice?.delta?.content ?? choice?.delta?.reasoning_content ?? choice?.delta?.reasoning
    if (!text) return
    const now = target.seconds()
    if (chunks++ === 0) result.ttft = now - start
    else result.itl.push(now - last)
    last = now
    result.text += text
  }

  try {
    const response = await request(target.url, {
      method: 'POST',
      dispatcher: target.dispatcher,
      headers: { ...target.headers, 'content-type': 'application/json', 'x-request-id': id },
      body: JSON.stringify(requestBody(options, target.model, sample)),
      headersTimeout: 0,
      bodyTimeout: 0,
    })
    if (response.statusCode !== 200)
      throw new Error(`HTTP ${response.statusCode}: ${(await response.body.text()).slice(0, 300)}`)
    const decoder = new TextDecoder()
    let pending = ''
    for await (const bytes of response.body) {
      pending += decoder.decode(bytes, { stream: true })
      const lines = pending.split('\n')
      pending = lines.pop()!
      for (const line of lines) if (line.startsWith('data:')) onData(line.slice(5).trim())
    }
    if (!finished) throw new Error('the stream ended without [DONE]')
    if (chunks === 0 && result.outputTokens === 0) throw new Error('no token was received')
    result.outputTokens ||= chunks
    result.latency = last - start
    result.success = true
  } catch (error) {
    result.error = error instanceof Error ? error.message : String(error)
  }
  return result
}
