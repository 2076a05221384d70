// Runs a compiled script against the embedded server, converting between Redis' replies and Lua's values exactly as
// Redis does (redis.io, "Lua API": data type conversion).
import type { CompiledScript } from './lua-compiler.ts'
import { formatGeneral, LuaError, type LuaFunction, LuaTable, type LuaValue } from './lua-runtime.ts'
import { RedisError, Status, type Value } from './reply.ts'

export type Execute = (name: string, args: string[]) => Value

export function runScript(script: CompiledScript, keys: string[], argv: string[], execute: Execute): Value {
  const call: LuaFunction = (...args) => toLua(execute(argument(args[0]), args.slice(1).map(argument)))
  const pcall: LuaFunction = (...args) => {
    try {
      return call(...args)
    } catch (error) {
      if (error instanceof RedisError || error instanceof LuaError) return fields('err', error.message)
      throw error
    }
  }
  return toReply(script(new LuaTable(keys), new LuaTable(argv), { call, pcall }))
}

function argument(value: LuaValue): string {
  if (typeof value === 'string') return value
  if (typeof value === 'number') return formatGeneral(value, 17)
  throw new LuaError('ERR Lua redis lib command arguments must be strings or integers')
}

function fields(key: string, text: string): LuaTable {
  const table = new LuaTable()
  table.set(key, text)
  return table
}

function toLua(value: Value): LuaValue {
  if (value === null) return false
  if (value instanceof Status) return fields('ok', value.text)
  return Array.isArray(value) ? new LuaTable(value.map(toLua)) : value
}

function toReply(value: LuaValue): Value {
  if (value === undefined || value === false || typeof value === 'function') return null
  if (value === true) return 1
  if (typeof value === 'number') return Math.trunc(value)
  if (typeof value === 'string') return value
  const error = value.get('err')
  if (typeof error === 'string') throw new RedisError(error)
  const status = value.get('ok')
  if (typeof status === 'string') return new Status(status)
  return value.list.map(toReply)
}
