// The thread of pool.ts: renders one conversation per message.
import { parentPort } from 'node:worker_threads'
import type { RenderReply, RenderTask } from './pool.ts'
import { parseTemplate, render, type Template, TemplateRefusal } from './template.ts'

let last: Template | null = null

parentPort?.on('message', ({ source, variables, now }: RenderTask) => {
  parentPort?.postMessage(reply(source, variables, now))
})

function reply(source: string, variables: RenderTask['variables'], now: number): RenderReply {
  try {
    if (last?.source !== source) last = parseTemplate(source)
    return { text: render(last, variables, now) }
  } catch (error) {
    const { message } = error as Error
    return error instanceof TemplateRefusal ? { refusal: message } : { failure: message }
  }
}
