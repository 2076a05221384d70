// What compiled scripts run on: tables and the library functions of the subset, with Lua 5.1's and Redis' own rules for
// turning values into text. A Lua string is a JavaScript string of bytes (latin1); nil is undefined; all numbers are doubles.

import { createHash } from 'node:crypto'

export type LuaValue = undefined | boolean | number | string | LuaTable | LuaFunction
export type LuaFunction = (...args: LuaValue[]) => LuaValue

export class LuaError extends Error {
  override name = 'LuaError'
}

/** A list from 1 without holes, and a map for all other keys. A hole would make #t undefined, so it is an error. */
export class LuaTable {
  readonly list: LuaValue[]
  #map: Map<LuaValue, LuaValue> | undefined

  constructor(list: LuaValue[] = []) {
    this.list = list
  }

  get(key: LuaValue): LuaValue {
    if (typeof key === 'number' && key >= 1 && key <= this.list.length) return this.list[key - 1]
    return this.#map?.get(key)
  }

  set(key: LuaValue, value: LuaValue): void {
    const { length } = this.list
    if (key === undefined) throw new LuaError('table index is nil')
    if (typeof key !== 'number') {
      this.#map ??= new Map()
      if (value === undefined) this.#map.delete(key)
      else this.#map.set(key, value)
    } else if (value === undefined) {
      if (key === length) this.list.pop()
      else if (key >= 1 && key < length) throw new LuaError('this would leave a hole in a list')
    } else if (key === length + 1) {
      this.list.push(value)
    } else if (key >= 1 && key <= length && Number.isInteger(key)) {
      this.list[key - 1] = value
    } else {
      throw new LuaError(`list index ${key} leaves a hole after ${length}`)
    }
  }
}

const typeOf = (value: LuaValue): string => {
  if (value === undefined) return 'nil'
  return value instanceof LuaTable ? 'table' : typeof value
}

/** C's %.<precision>g. */
export function formatGeneral(value: number, precision: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 10 ** precision) return Object.is(value, -0) ? '-0' : String(value)
  if (Number.isNaN(value)) return 'nan'
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf'
  const [mantissa, exponent] = roundedTo(value, precision).split('e') as [string, string]
  const trim = (text: string) => (text.includes('.') ? text.replace(/\.?0+$/, '') : text)
  const power = Number(exponent)
  if (power >= -4 && power < precision) return trim(Number(`${mantissa}e${power}`).toPrecision(precision))
  return `${trim(mantissa)}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`
}

/** toExponential, but exact ties go to the even digit, as in C; JavaScript takes the larger. */
function roundedTo(value: number, precision: number): string {
  const [digits, exponent] = value.toExponential(100).split('e') as [string, string]
  const kept = precision + digits.indexOf('.')
  const isTie = /^50*$/.test(digits.slice(kept))
  if (isTie && Number(digits[kept - 1]) % 2 === 0) return `${digits.slice(0, kept)}e${exponent}`
  return value.toExponential(precision - 1)
}

function toNumber(value: LuaValue): number | undefined {
  if (typeof value === 'number') return value
  if (typeof value !== 'string' || !/^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$/.test(value)) return undefined
  return Number(value)
}

/** Operators, as compiled code calls them. */
export const operators = {
  truthy: (value: LuaValue): boolean => value !== undefined && value !== false,
  number(value: LuaValue): number {
    if (typeof value === 'number') return value
    const number = toNumber(value)
    if (number === undefined) throw new LuaError(`attempt to perform arithmetic on a ${typeOf(value)} value`)
    return number
  },
  modulo: (a: number, b: number): number => a - Math.floor(a / b) * b,
  text(value: LuaValue): string {
    if (typeof value === 'string') return value
    if (typeof value === 'number') return formatGeneral(value, 14)
    throw new LuaError(`attempt to concatenate a ${typeOf(value)} value`)
  },
  less(a: LuaValue, b: LuaValue): boolean {
    if (typeof a === 'number' && typeof b === 'number') return a < b
    if (typeof a === 'string' && typeof b === 'string') return a < b
    throw new LuaError(`attempt to compare ${typeOf(a)} with ${typeOf(b)}`)
  },
  lessOrEqual(a: LuaValue, b: LuaValue): boolean {
    if (typeof a === 'number' && typeof b === 'number') return a <= b
    if (typeof a === 'string' && typeof b === 'string') return a <= b
    throw new LuaError(`attempt to compare ${typeOf(a)} with ${typeOf(b)}`)
  },
  length(value: LuaValue): number {
    if (typeof value === 'string') return value.length
    if (value instanceof LuaTable) return value.list.length
    throw new LuaError(`attempt to get length of a ${typeOf(value)} value`)
  },
  get(table: LuaValue, key: LuaValue): LuaValue {
    if (!(table instanceof LuaTable)) throw new LuaError(`attempt to index a ${typeOf(table)} value`)
    return table.get(key)
  },
  set(table: LuaValue, key: LuaValue, value: LuaValue): void {
    if (!(table instanceof LuaTable)) throw new LuaError(`attempt to index a ${typeOf(table)} value`)
    table.set(key, value)
  },
  table(list: LuaValue[], fields: [LuaValue, LuaValue][]): LuaTable {
    if (list.includes(undefined)) throw new LuaError('nil in a list')
    const table = new LuaTable(list)
    for (const [key, value] of fields) table.set(key, value)
    return table
  },
  call(callee: LuaValue, args: LuaValue[]): LuaValue {
    if (typeof callee !== 'function') throw new LuaError(`attempt to call a ${typeOf(callee)} value`)
    return callee(...args)
  },
  unpack(table: LuaValue): LuaValue[] {
    return listOf(table, 'unpack')
  },
}

function listOf(value: LuaValue, user: string): LuaValue[] {
  if (value instanceof LuaTable) return value.list
  throw new LuaError(`bad argument #1 to '${user}' (table expected, got ${typeOf(value)})`)
}

/** Lua's substring bounds: from 1, negative from the end, both inclusive. */
function sub(text: string, from: number, to: number): string {
  const start = from < 0 ? Math.max(text.length + from, 0) : Math.max(from - 1, 0)
  const end = to < 0 ? text.length + to + 1 : to
  return text.slice(start, Math.max(start, end))
}

function format(pattern: string, args: LuaValue[]): string {
  let next = 0
  return pattern.replace(/%(%|[.\d]*[A-Za-z])/g, (directive) => {
    if (directive === '%%') return '%'
    const value = args[next++]
    if (directive === '%s') return operators.text(value)
    if (directive === '%d') return BigInt(Math.trunc(operators.number(value))).toString()
    if (directive === '%.0f') return wholeText(operators.number(value))
    throw new LuaError(`string.format: ${directive} is outside the subset (%s %d %.0f)`)
  })
}

function wholeText(value: number): string {
  if (!Number.isInteger(value)) throw new LuaError(`string.format: %.0f of ${value}, which is not whole`)
  return BigInt(value).toString()
}

/** The library; the compiler resolves `string.sub` and the like here and refuses all other names. */
export const library: Record<string, LuaFunction> = {
  tonumber: (value) => toNumber(value),
  tostring: (value) => {
    if (typeof value === 'string' || typeof value === 'number') return operators.text(value)
    if (value === undefined || typeof value === 'boolean') return value === undefined ? 'nil' : String(value)
    throw new LuaError('tostring of a table or function differs from run to run')
  },
  type: (value) => typeOf(value),
  'string.sub': (text, from, to) =>
    sub(operators.text(text), operators.number(from), to === undefined ? -1 : operators.number(to)),
  'string.find': (text, wanted, from, plain) => {
    if (plain !== true) throw new LuaError('string.find: only plain searches are in the subset')
    const at = operators.text(text).indexOf(operators.text(wanted), operators.number(from) - 1)
    return at < 0 ? undefined : at + 1
  },
  'string.rep': (text, count) => operators.text(text).repeat(Math.max(0, operators.number(count))),
  'string.byte': (text, at) => {
    const code = operators.text(text).charCodeAt((at === undefined ? 1 : operators.number(at)) - 1)
    return Number.isNaN(code) ? undefined : code
  },
  'string.format': (pattern, ...args) => format(operators.text(pattern), args),
  'table.concat': (table, separator) =>
    listOf(table, 'concat')
      .map(operators.text)
      .join(separator === undefined ? '' : operators.text(separator)),
  'table.insert': (table, at, value) => {
    const list = listOf(table, 'insert')
    if (value === undefined) list.push(at)
    else list.splice(operators.number(at) - 1, 0, value)
    return undefined
  },
  'math.floor': (value) => Math.floor(operators.number(value)),
  'math.max': (...values) => Math.max(...values.map(operators.number)),
  'math.min': (...values) => Math.min(...values.map(operators.number)),
  'redis.sha1hex': (text) => createHash('sha1').update(operators.text(text), 'latin1').digest('hex'),
  'redis.status_reply': (text) => operators.table([], [['ok', text]]),
  'redis.error_reply': (text) => operators.table([], [['err', text]]),
}
