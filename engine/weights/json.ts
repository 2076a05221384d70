// The JSON files beside the weights, held to a schema. Called by whoever reads one (files.ts, safetensors.ts,
// models/config.ts). A file comes from a stranger: what does not fit is a ModelError with the file, the field and the value.
import type { z } from 'zod'
import { ModelError } from './source.ts'

export function parseJson(file: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new ModelError(`${file} is not valid JSON: ${error instanceof Error ? error.message : error}`)
  }
}

/** `field` is where in the file `value` stands, if not at the top. */
export function checkJson<Value>(file: string, schema: z.ZodType<Value>, value: unknown, field?: string): Value {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  const found = issue.path.reduce((at: unknown, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key], value)
  const path = [...(field ? [field] : []), ...issue.path].join('.')
  throw new ModelError(`${file}: ${path ? `${path}: ` : ''}${issue.message} (${show(found)})`)
}

/** What stands in a file, short enough for one line of an error. */
export function show(value: unknown): string {
  if (value === undefined) return 'missing'
  if (Array.isArray(value))
    return `[${value.slice(0, 8).map((item) => (typeof item === 'object' ? '?' : String(item)))}]`
  if (typeof value === 'object' && value !== null) return 'an object'
  return String(value)
    .slice(0, 120)
    .replace(/\p{Cc}/gu, '?')
}
