// The classic offline batch: three prompts in one continuous batch, no server, no Redis. With another model:
//   node scripts/examples/offline.ts org/name
import { fileURLToPath } from 'node:url'
import { LLM, SamplingParams } from '../llm.ts' // in your own project: from 'pagestream'

const prompts = ['Pagestream is', 'The capital of France is', 'Once upon a time']
const samplingParams = new SamplingParams({ temperature: 0.8, top_p: 0.95, max_tokens: 64 })

const llm = new LLM({ model: process.argv[2] ?? fileURLToPath(new URL('../demo/model', import.meta.url)) })
const outputs = await llm.generate(prompts, samplingParams)
for (const { prompt, outputs: choices } of outputs) {
  console.log(`${JSON.stringify(prompt)} -> ${JSON.stringify(choices[0].text)}`)
}
await llm.close()
