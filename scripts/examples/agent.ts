// The classic agent script of any vLLM tutorial: the official client, another base URL, any key. Run `npm start`, then
//   node scripts/examples/agent.ts "What is PagedAttention?"
import OpenAI from 'openai'

const client = new OpenAI({ baseURL: process.env.OPENAI_BASE_URL ?? 'http://localhost:8000/v1', apiKey: 'not-needed' })

const response = await client.chat.completions.create({
  model: process.env.MODEL ?? 'demo',
  messages: [
    { role: 'system', content: 'You are a helpful assistant.' },
    { role: 'user', content: process.argv[2] ?? 'What is PagedAttention?' },
  ],
  temperature: 0.7,
  max_tokens: 500,
})
console.log(response.choices[0]?.message.content)
