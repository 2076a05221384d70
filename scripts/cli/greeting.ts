// What `serve` prints when it is ready: where it runs, and two ways of talking to it that work when pasted.
import type { GatewayConfig } from '../../gateway/config.ts'
import type { Card } from '../../queue/card.ts'

type Server = Pick<GatewayConfig, 'host' | 'rootPath' | 'apiKeys'>

export function greeting({ host, rootPath, apiKeys }: Server, port: number, card: Pick<Card, 'name' | 'chatTemplate'>) {
  const isAnyAddress = host === '0.0.0.0' || host === '::'
  const name = isAnyAddress ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host
  const url = `http://${name}:${port}${rootPath}/v1`
  // Keys are not printed: terminals are recorded.
  const needsKey = apiKeys.length > 0
  const model = card.name
  const isChat = card.chatTemplate !== null
  const question = 'What is PagedAttention?'
  const input = isChat ? { messages: [{ role: 'user', content: question }] } : { prompt: 'Once upon a time' }
  const path = isChat ? '/chat/completions' : '/completions'
  const call = isChat ? 'chat.completions' : 'completions'
  return `
Serving ${model} on ${url}  (Ctrl-C to stop)

  curl -N ${url}${path} -H 'content-type: application/json' \\${needsKey ? '\n    -H "authorization: Bearer $KEY" \\' : ''}
    -d '${JSON.stringify({ model, stream: true, ...input }).replaceAll("'", "'\\''")}'

  import OpenAI from 'openai'
  const client = new OpenAI({ baseURL: '${url}', apiKey: ${needsKey ? 'process.env.KEY' : "'not-needed'"} })
  const answer = await client.${call}.create(${JSON.stringify({ model, ...input })})

`
}
