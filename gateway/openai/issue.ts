// zod's issues -> one ApiError: `param` is the JSON path as clients write it (messages[0].content), the message names
// the value and the fix. Only the first issue is reported, and for a union that of the branch that came furthest.
import type { z } from 'zod'
import { type ApiError, badRequest } from '../errors.ts'

type Issue = z.core.$ZodIssue

export function parseRequest<T extends z.ZodType>(schema: T, body: unknown): z.infer<T> {
  if (body === null || typeof body !== 'object' || Array.isArray(body)) {
    throw badRequest(null, 'The request body must be a JSON object.')
  }
  const result = schema.safeParse(body)
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
  return badRequest(param, `${param}: ${issue.message}`.slice(0, 1000))
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
