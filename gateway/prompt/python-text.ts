// How Python prints what a template outputs: str() of the whole, repr() of what lies inside a list or a mapping.
import type { Value } from './jinja.ts'

/** str(value): what `{{ value }}` and `~` write. Undefined is empty, none is "None". */
export function str(value: Value): string {
  switch (value.type) {
    case 'StringValue':
      return String(value.value)
    case 'UndefinedValue':
      return ''
    case 'NullValue':
      return 'None'
    case 'BooleanValue':
      return value.value ? 'True' : 'False'
    case 'ArrayValue':
      return `[${items(value).map(repr).join(', ')}]`
    case 'TupleValue':
      return items(value).length === 1 ? `(${repr(items(value)[0]!)},)` : `(${items(value).map(repr).join(', ')})`
    case 'ObjectValue':
    case 'KeywordArgumentsValue':
      return `{${fields(value)
        .map(([key, field]) => `${quote(key)}: ${repr(field)}`)
        .join(', ')}}`
    default:
      return value.toString()
  }
}

function repr(value: Value): string {
  return value.type === 'StringValue' ? quote(String(value.value)) : str(value)
}

const items = (value: Value) => value.value as Value[]
const fields = (value: Value) => [...(value.value as Map<string, Value>)]

const ESCAPES: Record<string, string> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' }

/** In single quotes, unless that would need escapes and double quotes would not. */
function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'"
  const escaped = text.replace(/[\\\n\r\t]/g, (c) => ESCAPES[c]!)
  return mark + (mark === "'" ? escaped.replaceAll("'", "\\'") : escaped) + mark
}
