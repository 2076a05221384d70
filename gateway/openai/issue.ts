// zod's issues -> one ApiError: `param` is the JSON path as clients write it (messages[0].content), the message names
// the value and the fix. Only the first issue is reported, and for a union that of the branch that came furthest.
import type { z } from 'zod'
import { type ApiError, badRequest } from '../errors.ts'

type Issue = z.core.$ZodIssue

export function parseRequest<T extends z.ZodType>(schema: T, body: unknown): z.infer<T> {
  if (body === null || typeof body !== 'object' || Array.isArray(body)) {
    throw badRequest(null, 'The request body must be a JSON object.')
  }
  const result = schema.safeParse(body, { reportInput: true })
  if (result.success) return result.data
  throw toError(result.error.issues[0]!, [])
}

function toError(issue: Issue, above: PropertyKey[]): ApiError {
  const path = [...above, ...issue.path]
  if (issue.code === 'invalid_union') {
    const deepest = issue.errors.flat().sort((a, b) => depth(b) - depth(a))[0]
    if (deepest && depth(deepest) > 0) return toError(deepest, path)
  }
  const param = formatPath(path)
  return badRequest(param, `${param}: ${explain(issue)}`.slice(0, 1000))
}

/** zod's own words ("Too big: expected number to be <=2") as a sentence; the schema's are sentences already. */
function explain(issue: Issue): string {
  if (!/^(Invalid|Too|Unrec)/.test(issue.message)) return issue.message
  switch (issue.code) {
    case 'too_big':
      return `must ${size(issue.origin, issue.inclusive ? 'at most' : 'below', issue.maximum)}.`
    case 'too_small':
      return `must ${size(issue.origin, issue.inclusive ? 'at least' : 'above', issue.minimum)}.`
    case 'invalid_type':
      return issue.input === undefined ? 'is missing.' : `must be ${article(issue.expected)}, not ${kind(issue.input)}.`
    case 'invalid_value':
      return `must be one of ${issue.values.map((value) => JSON.stringify(value)).join(', ')}.`
    default:
      return issue.message
  }
}

function size(origin: string, relation: string, bound: number | bigint): string {
  if (origin === 'string') return `have ${relation} ${bound} characters`
  return origin === 'array' ? `have ${relation} ${bound} items` : `be ${relation} ${bound}`
}

function article(type: string): string {
  if (type === 'int' || type === 'integer') return 'an integer'
  return /^[aeiou]/.test(type) ? `an ${type}` : `a ${type}`
}

function kind(value: unknown): string {
  if (value === null) return 'null'
  if (typeof value === 'number') return String(value)
  return article(Array.isArray(value) ? 'array' : typeof value)
}

function depth(issue: Issue): number {
  const below = issue.code === 'invalid_union' ? Math.max(0, ...issue.errors.flat().map(depth)) : 0
  return issue.path.length + below
}

function formatPath(path: PropertyKey[]): string {
  return path
    .map((key, i) => (typeof key === 'number' ? `[${key}]` : `${i === 0 ? '' : '.'}${String(key).slice(0, 60)}`))
    .join('')
}
