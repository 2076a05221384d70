// Ten users ask about one document: retrieval-augmented generation as a server sees it. One gateway, a Redis and two
// engines; the document is computed once per engine and read from the prefix cache by everybody after. The demo model
// is too small to understand the document: look at the cached tokens, not at the answers.
//   node scripts/examples/rag.ts
import { readFileSync } from 'node:fs'
import { systemClock } from '../../queue/clock.ts'
import { demoModel, engineConfig, gatewayConfig } from '../cli/configure.ts'
import { launchEngine } from '../cli/engine.ts'
import { launchGateway } from '../cli/gateway.ts'
import { createLog } from '../cli/log.ts'
import { findQueue } from '../cli/queue.ts'

const questions = [
  'What is a block table?',
  'Why are KV blocks small?',
  'Who wrote this?',
  'What does the gateway do?',
  'What does an engine do?',
  'Where do tokens wait?',
  'What is a lease?',
  'How does a stream survive a crash?',
  'What is continuous batching?',
  'Summarise this in one line.',
]

const queue = await findQueue(process.env.REDIS_URL, process.env.PATH ?? '', systemClock)
console.log(`queue: ${queue.description}`)
const gateway = await launchGateway(gatewayConfig({ port: 0 }), queue.redis, { log: createLog('gateway', 'warn') })
const config = engineConfig({ model: demoModel, servedModelName: ['demo'], threads: 1 }, queue.url)
const engines = [await launchEngine(config, queue.redis, 'warn'), await launchEngine(config, queue.redis, 'warn')]

// About a thousand tokens of text, the same for every user.
const source = new URL('../demo/training/facts_concepts.txt', import.meta.url)
const document = readFileSync(source, 'utf8').slice(0, 2500)

async function ask(question: string) {
  const response = await fetch(`http://127.0.0.1:${gateway.port}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'demo',
      temperature: 0,
      max_tokens: 24,
      messages: [
        { role: 'system', content: `Answer from this document.\n\n${document}` },
        { role: 'user', content: question },
      ],
    }),
  })
  const { usage, error } = (await response.json()) as Answer
  if (!usage) throw new Error(error?.message ?? `HTTP ${response.status}`)
  return { prompt: usage.prompt_tokens, cached: usage.prompt_tokens_details?.cached_tokens ?? 0 }
}

type Answer = {
  usage?: { prompt_tokens: number; prompt_tokens_details?: { cached_tokens: number } }
  error?: { message: string }
}

console.log('user  prompt tokens  cached tokens')
const usages = []
for (const [user, question] of questions.entries()) {
  const usage = await ask(question)
  usages.push(usage)
  console.log(`${String(user + 1).padStart(4)}${String(usage.prompt).padStart(15)}${String(usage.cached).padStart(15)}`)
}
const sum = (numbers: number[]) => numbers.reduce((total, number) => total + number, 0)
const [prompt, cached] = [sum(usages.map(({ prompt }) => prompt)), sum(usages.map(({ cached }) => cached))]
console.log(
  `${cached} of ${prompt} prompt tokens (${Math.round((100 * cached) / prompt)} %) came from the prefix cache`,
)

await gateway.close()
for (const engine of engines) await engine.close()
await queue.close()
