// Chat templates, in the folder of golden.json, against what transformers renders for a set of conversations.
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { checkJson, parseJson } from '../../engine/weights/json.ts'
import { renderTemplate } from '../../gateway/prompt/template.ts'

const Conversation = z.object({
  messages: z.array(z.unknown()),
  tools: z.array(z.unknown()).optional(),
  /** Whether the assistant is to speak next. */
  gen: z.boolean().default(true),
  kw: z.record(z.string(), z.unknown()).default({}),
})
const Expected = z.union([
  z.object({ ok: z.literal(true), text: z.string() }),
  z.object({ ok: z.literal(false), error: z.string() }),
])
const Golden = z.object({
  cases: z.record(z.string(), Conversation),
  templates: z.record(z.string(), z.object({ cases: z.record(z.string(), Expected) })),
  extra_vars: z.record(z.string(), z.unknown()).default({}),
})

/** Cases by outcome: equal text, or both refuse; other text; an error where transformers renders. */
export type TemplateResult = { name: string; passed: string[]; failed: string[]; unsupported: string[] }

/** When the goldens were rendered: templates may print the date. */
const goldenNow = Date.UTC(2026, 0, 15, 12)

export function verifyTemplates(goldenFile: string): TemplateResult[] {
  const golden = checkJson(goldenFile, Golden, parseJson(goldenFile, readFileSync(goldenFile, 'utf8')))
  return Object.entries(golden.templates).map(([name, { cases }]) => {
    const source = readFileSync(join(dirname(goldenFile), name), 'utf8')
    const result: TemplateResult = { name, passed: [], failed: [], unsupported: [] }
    for (const [id, expected] of Object.entries(cases)) {
      const { messages, tools = null, gen, kw } = golden.cases[id]!
      const variables = { messages, tools, add_generation_prompt: gen, ...golden.extra_vars, ...kw }
      result[outcome(source, variables, expected)].push(id)
    }
    return result
  })
}

function outcome(source: string, variables: Record<string, unknown>, expected: z.infer<typeof Expected>) {
  let text: string
  try {
    text = renderTemplate(source, variables, goldenNow)
  } catch {
    return expected.ok ? 'unsupported' : 'passed'
  }
  // What only Python's types could not do is no verdict on the text; what the template itself refuses is.
  if (!expected.ok) return expected.error.startsWith('TemplateError') ? 'failed' : 'passed'
  return text === expected.text ? 'passed' : 'failed'
}
