// Compiles a script of queue/lua to a JavaScript function. Names are resolved here: a variable must be local, a library
// function must be in the runtime's library, KEYS and ARGV are arguments; anything else is refused with its line.
import { LuaSyntaxError } from './lua-lexer.ts'
import { type Expression, parse, type Statement } from './lua-parser.ts'
import { type LuaFunction, type LuaTable, type LuaValue, library, operators } from './lua-runtime.ts'

/** `redis.call`, and `redis.pcall`, which returns the error as {err = ...}. */
export type RedisCall = { call: LuaFunction; pcall: LuaFunction }
export type CompiledScript = (keys: LuaTable, argv: LuaTable, redis: RedisCall) => LuaValue

export function compileLua(text: string): CompiledScript {
  const compiler = new Compiler()
  const body = compiler.program(parse(text))
  const make = new Function('op', 'lib', `'use strict'; return (KEYS, ARGV, redis) => {${body}\n}`)
  return make(operators, library) as CompiledScript
}

const comparisons = new Set(['==', '~=', '<', '>', '<=', '>='])

class Compiler {
  /** Innermost last: Lua name -> JavaScript name. */
  readonly #scopes: Map<string, string>[] = []
  /** Variables for the left sides of `and` and `or`, declared at the head of the function being compiled. */
  #temporaries: string[] = []
  #count = 0

  program(body: Statement[]): string {
    return this.#function([], body).code
  }

  #declare(name: string): string {
    const unique = `${name}_${this.#count++}`
    this.#scopes.at(-1)!.set(name, unique)
    return unique
  }

  #resolve(name: string): string | undefined {
    return this.#scopes.findLast((scope) => scope.has(name))?.get(name)
  }

  #function(parameters: string[], body: Statement[]): { names: string; code: string } {
    const outer = this.#temporaries
    this.#temporaries = []
    this.#scopes.push(new Map())
    const names = parameters.map((parameter) => this.#declare(parameter)).join(', ')
    const code = this.#block(body)
    this.#scopes.pop()
    const head = this.#temporaries.length > 0 ? `let ${this.#temporaries.join(', ')};` : ''
    this.#temporaries = outer
    return { names, code: head + code }
  }

  #block(body: Statement[], declared: [name: string, value: string][] = []): string {
    this.#scopes.push(new Map())
    const head = declared.map(([name, value]) => `let ${this.#declare(name)} = ${value};`)
    const code = [...head, ...body.map((statement) => this.#statement(statement))].join('\n')
    this.#scopes.pop()
    return code
  }

  #statement(s: Statement): string {
    switch (s.kind) {
      case 'local': {
        // Values first: `local x = x` means the outer x.
        const values = s.values.map((value) => this.#value(value))
        return s.names.map((name, i) => `let ${this.#declare(name)} = ${values[i]};`).join(' ')
      }
      case 'function':
        return `let ${this.#declare(s.name)}; ${this.#resolve(s.name)} = ${this.#value(s.value)};`
      case 'assign':
        return this.#assign(s.targets, s.values)
      case 'call':
        return `${this.#value(s.call)};`
      case 'if': {
        const arms = s.arms.map(({ condition, body }) => `if (${this.#condition(condition)}) {${this.#block(body)}}`)
        return `${arms.join(' else ')} else {${this.#block(s.otherwise)}}`
      }
      case 'while':
        return `while (${this.#condition(s.condition)}) {${this.#block(s.body)}}`
      case 'for': {
        const i = `i_${this.#count++}`
        const bounds = `let ${i} = ${this.#number(s.from)}, ${i}_to = ${this.#number(s.to)}`
        const test = s.step > 0 ? `${i} <= ${i}_to` : `${i} >= ${i}_to`
        return `for (${bounds}; ${test}; ${i} += ${s.step}) {${this.#block(s.body, [[s.name, i]])}}`
      }
      case 'each': {
        const i = `i_${this.#count++}`
        const next = `const ${i}_v = op.get(${i}_t, ${i}); if (${i}_v === undefined) break;`
        const declared: [string, string][] = [
          [s.index, i],
          [s.name, `${i}_v`],
        ]
        return `for (let ${i} = 1, ${i}_t = ${this.#value(s.table)}; ; ${i}++) {${next}${this.#block(s.body, declared)}}`
      }
      case 'do':
        return `{${this.#block(s.body)}}`
      case 'return':
        return s.value ? `return ${this.#value(s.value)};` : 'return;'
      case 'break':
        return 'break;'
    }
  }

  #assign(targets: Expression[], values: Expression[]): string {
    const many = values.length > 1
    const sources = values.map((value, i) => (many ? `v_${this.#count + i}` : this.#value(value)))
    const before = many ? `const ${values.map((value, i) => `${sources[i]} = ${this.#value(value)}`).join(', ')};` : ''
    this.#count += values.length
    const stores = targets.map((target, i) => {
      if (target.kind === 'index')
        return `op.set(${this.#value(target.table)}, ${this.#value(target.key)}, ${sources[i]});`
      const name = target.kind === 'name' ? this.#resolve(target.text) : undefined
      if (!name)
        throw new LuaSyntaxError(
          target.line,
          `assignment to a global${target.kind === 'name' ? ` ${target.text}` : ''}`,
        )
      return `${name} = ${sources[i]};`
    })
    return `{${before}${stores.join(' ')}}`
  }

  /** A JavaScript boolean. */
  #condition(e: Expression): string {
    if (e.kind === 'binary' && e.operator === 'and')
      return `(${this.#condition(e.left)} && ${this.#condition(e.right)})`
    if (e.kind === 'binary' && e.operator === 'or') return `(${this.#condition(e.left)} || ${this.#condition(e.right)})`
    if (e.kind === 'unary' && e.operator === 'not') return `!${this.#condition(e.operand)}`
    if (e.kind === 'binary' && comparisons.has(e.operator)) return this.#value(e)
    return `op.truthy(${this.#value(e)})`
  }

  #number(e: Expression): string {
    return e.kind === 'number' ? e.text : `op.number(${this.#value(e)})`
  }

  #value(e: Expression): string {
    switch (e.kind) {
      case 'nil':
        return 'undefined'
      case 'true':
      case 'false':
        return e.kind
      case 'number':
        return String(Number(e.text))
      case 'string':
        return JSON.stringify(Buffer.from(e.text, 'utf8').toString('latin1'))
      case 'name':
        return this.#variable(e.text, e.line)
      case 'unary':
        if (e.operator === 'not') return `!${this.#condition(e.operand)}`
        return e.operator === '#' ? `op.length(${this.#value(e.operand)})` : `(-${this.#number(e.operand)})`
      case 'binary':
        return this.#binary(e.operator, e.left, e.right)
      case 'index':
        return `op.get(${this.#value(e.table)}, ${this.#value(e.key)})`
      case 'call':
        return this.#call(e.callee, e.args)
      case 'table': {
        const fields = e.fields.map(({ key, value }) => `[${this.#value(key)}, ${this.#value(value)}]`)
        return `op.table([${this.#arguments(e.list)}], [${fields.join(', ')}])`
      }
      case 'function': {
        const { names, code } = this.#function(e.parameters, e.body)
        return `((${names}) => {${code}})`
      }
    }
  }

  #variable(name: string, line: number): string {
    const local = this.#resolve(name) ?? (name === 'KEYS' || name === 'ARGV' ? name : undefined)
    if (!local) throw new LuaSyntaxError(line, `${name} is neither local nor in the library`)
    return local
  }

  #binary(operator: string, left: Expression, right: Expression): string {
    switch (operator) {
      case 'and':
      case 'or': {
        const temporary = `t_${this.#count++}`
        this.#temporaries.push(temporary)
        const test = `op.truthy(${temporary} = ${this.#value(left)})`
        const second = this.#value(right)
        return operator === 'and' ? `(${test} ? ${second} : ${temporary})` : `(${test} ? ${temporary} : ${second})`
      }
      case '==':
        return `(${this.#value(left)} === ${this.#value(right)})`
      case '~=':
        return `(${this.#value(left)} !== ${this.#value(right)})`
      case '<':
        return `op.less(${this.#value(left)}, ${this.#value(right)})`
      case '<=':
        return `op.lessOrEqual(${this.#value(left)}, ${this.#value(right)})`
      case '>':
        return `op.less(${this.#value(right)}, ${this.#value(left)})`
      case '>=':
        return `op.lessOrEqual(${this.#value(right)}, ${this.#value(left)})`
      case '..':
        return `(op.text(${this.#value(left)}) + op.text(${this.#value(right)}))`
      case '%':
        return `op.modulo(${this.#number(left)}, ${this.#number(right)})`
      default:
        return `(${this.#number(left)} ${operator} ${this.#number(right)})`
    }
  }

  #arguments(args: Expression[]): string {
    return args
      .map((arg, i) => {
        const unpacks = arg.kind === 'call' && arg.callee.kind === 'name' && arg.callee.text === 'unpack'
        if (!unpacks) return this.#value(arg)
        if (i !== args.length - 1 || arg.args.length !== 1) {
          throw new LuaSyntaxError(arg.line, 'unpack(t) must be the last argument')
        }
        return `...op.unpack(${this.#value(arg.args[0]!)})`
      })
      .join(', ')
  }

  #call(callee: Expression, args: Expression[]): string {
    const list = this.#arguments(args)
    const path = this.#libraryPath(callee)
    if (path === undefined) return `op.call(${this.#value(callee)}, [${list}])`
    if (path === 'redis.call' || path === 'redis.pcall') return `${path}(${list})`
    if (!Object.hasOwn(library, path)) throw new LuaSyntaxError(callee.line, `${path} is outside the subset`)
    return `lib[${JSON.stringify(path)}](${list})`
  }

  /** `string.sub`, `tonumber`; undefined for what a local variable holds. */
  #libraryPath(callee: Expression): string | undefined {
    if (callee.kind === 'name') return this.#resolve(callee.text) ? undefined : callee.text
    if (callee.kind !== 'index' || callee.table.kind !== 'name' || callee.key.kind !== 'string') return undefined
    return this.#resolve(callee.table.text) ? undefined : `${callee.table.text}.${callee.key.text}`
  }
}
