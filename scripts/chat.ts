// `pagestream chat`: a conversation in the terminal with any OpenAI-compatible server, over HTTP like any other client.
// Flags as in `vllm chat`.
import { createInterface } from 'node:readline/promises'
import { type Flag, parseFlags } from './cli/flags.ts'
import { formatHelp } from './cli/help.ts'

const flags: Flag[] = [
  { name: '--url', kind: 'string', help: 'API root of the server (default http://127.0.0.1:8000/v1)' },
  { name: '--model-name', kind: 'string', help: 'model to talk to (default: the first that the server lists)' },
  { name: '--api-key', kind: 'string', env: ['OPENAI_API_KEY', 'VLLM_API_KEY'], help: 'bearer key' },
  { name: '--system-prompt', kind: 'string', help: 'what the model is told before the conversation' },
  { name: '--temperature', kind: 'number', help: 'default: what the model recommends' },
  { name: '--max-tokens', kind: 'integer', help: 'longest answer' },
  { name: '--quick', short: '-q', kind: 'string', help: 'ask this one question, print the answer, end' },
]

export const help = () =>
  formatHelp('pagestream chat [flags]', 'Talks to a server. An empty line or Ctrl-D ends the conversation.', [
    { title: 'Flags', flags },
  ])

type Message = { role: 'system' | 'user' | 'assistant'; content: string }
type Server = { url: string; headers: Record<string, string>; model: string; sampling: Record<string, unknown> }

export async function run(argv: string[]): Promise<number> {
  const { values } = parseFlags(flags, argv, process.env)
  const url = ((values.url as string | undefined) ?? 'http://127.0.0.1:8000/v1').replace(/\/+$/, '')
  const headers = {
    'content-type': 'application/json',
    authorization: `Bearer ${(values.apiKey as string | undefined) ?? 'not-needed'}`,
  }
  const model = (values.modelName as string | undefined) ?? (await firstModel(url, headers))
  const sampling = { temperature: values.temperature, max_tokens: values.maxTokens }
  const server: Server = { url, headers, model, sampling }
  const messages: Message[] = []
  if (values.systemPrompt) messages.push({ role: 'system', content: values.systemPrompt as string })

  if (values.quick !== undefined) {
    await exchange(server, messages, values.quick as string)
    return 0
  }
  process.stdout.write(`Talking to ${model}. An empty line ends the conversation.\n> `)
  const lines = createInterface({ input: process.stdin })
  for await (const line of lines) {
    if (line.trim() === '') break
    await exchange(server, messages, line)
    process.stdout.write('> ')
  }
  lines.close()
  process.stdout.write('\n')
  return 0
}

/** Asks, prints the answer as it comes, and keeps both in the conversation. */
async function exchange(server: Server, messages: Message[], question: string): Promise<void> {
  messages.push({ role: 'user', content: question })
  let answer = ''
  for await (const text of answerOf(server, messages)) {
    answer += text
    process.stdout.write(text)
  }
  process.stdout.write('\n')
  messages.push({ role: 'assistant', content: answer })
}

async function* answerOf(server: Server, messages: Message[]): AsyncGenerator<string> {
  const body = JSON.stringify({ model: server.model, messages, stream: true, ...server.sampling })
  const response = await ask(`${server.url}/chat/completions`, { method: 'POST', headers: server.headers, body })
  const decoder = new TextDecoder()
  let pending = ''
  for await (const bytes of response.body as ReadableStream<Uint8Array>) {
    pending += decoder.decode(bytes, { stream: true })
    const lines = pending.split('\n')
    pending = lines.pop() as string
    for (const line of lines) {
      if (!line.startsWith('data: ') || line === 'data: [DONE]') continue
      const chunk = JSON.parse(line.slice(6))
      if (chunk.error) throw new Error(chunk.error.message)
      yield chunk.choices[0]?.delta?.content ?? ''
    }
  }
}

async function firstModel(url: string, headers: Record<string, string>): Promise<string> {
  const { data } = (await (await ask(`${url}/models`, { headers })).json()) as { data: { id: string }[] }
  if (!data[0]) throw new Error(`the server at ${url} has no model yet`)
  return data[0].id
}

/** fetch, with failures said in one line. */
async function ask(url: string, init: RequestInit): Promise<Response> {
  const response = await fetch(url, init).catch((error) => {
    throw new Error(`no answer from ${url} (${error.cause?.code ?? error.message}); is the server running?`)
  })
  if (response.ok) return response
  const text = await response.text()
  throw new Error(`${url} answered ${response.status}: ${messageOf(text)}`)
}

function messageOf(body: string): string {
  try {
    return JSON.parse(body).error.message
  } catch {
    return body.slice(0, 300)
  }
}
