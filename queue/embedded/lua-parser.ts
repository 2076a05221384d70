// Parses the subset of Lua 5.1 that queue/lua is written in, and refuses the rest with its line.
//
// In it: local variables and functions, assignment, if, while, numeric for, `for _, x in ipairs(t)`, break, return of
// one value, tables, all operators but ^, calls. Not in it, because JavaScript would differ or nobody needs it:
// globals, several results, varargs, metatables, methods, pairs (no fixed order), goto, repeat, coroutines.
import { LuaSyntaxError, lex, type Word } from './lua-lexer.ts'

export type Expression =
  | { kind: 'nil' | 'true' | 'false'; line: number }
  | { kind: 'number' | 'string' | 'name'; text: string; line: number }
  | { kind: 'binary'; operator: string; left: Expression; right: Expression; line: number }
  | { kind: 'unary'; operator: string; operand: Expression; line: number }
  | { kind: 'index'; table: Expression; key: Expression; line: number }
  | { kind: 'call'; callee: Expression; args: Expression[]; line: number }
  | { kind: 'table'; list: Expression[]; fields: { key: Expression; value: Expression }[]; line: number }
  | { kind: 'function'; parameters: string[]; body: Statement[]; line: number }

export type Statement =
  | { kind: 'local'; names: string[]; values: Expression[]; line: number }
  | { kind: 'function'; name: string; value: Expression; line: number }
  | { kind: 'assign'; targets: Expression[]; values: Expression[]; line: number }
  | { kind: 'call'; call: Expression; line: number }
  | { kind: 'if'; arms: { condition: Expression; body: Statement[] }[]; otherwise: Statement[]; line: number }
  | { kind: 'while'; condition: Expression; body: Statement[]; line: number }
  | { kind: 'for'; name: string; from: Expression; to: Expression; step: number; body: Statement[]; line: number }
  | { kind: 'each'; index: string; name: string; table: Expression; body: Statement[]; line: number }
  | { kind: 'do'; body: Statement[]; line: number }
  | { kind: 'return'; value: Expression | null; line: number }
  | { kind: 'break'; line: number }

/** Binding power left and right of each operator; `..` binds to the right. */
const binary: Record<string, [number, number]> = {
  or: [1, 2],
  and: [3, 4],
  '<': [5, 6],
  '>': [5, 6],
  '<=': [5, 6],
  '>=': [5, 6],
  '~=': [5, 6],
  '==': [5, 6],
  '..': [8, 7],
  '+': [9, 10],
  '-': [9, 10],
  '*': [11, 12],
  '/': [11, 12],
  '%': [11, 12],
}
const UNARY = 13

export function parse(text: string): Statement[] {
  return new Parser(lex(text.replace(/^#![^\n]*/, ''))).chunk()
}

class Parser {
  readonly #words: Word[]
  #at = 0

  constructor(words: Word[]) {
    this.#words = words
  }

  chunk(): Statement[] {
    const body = this.#block()
    if (this.#word.kind !== 'end') this.#refuse(`unexpected ${this.#word.text}`)
    return body
  }

  get #word(): Word {
    return this.#words[this.#at]!
  }

  #refuse(message: string): never {
    throw new LuaSyntaxError(this.#word.line, message)
  }

  #is(text: string): boolean {
    const { kind } = this.#word
    return (kind === 'symbol' || kind === 'keyword') && this.#word.text === text
  }

  #accept(text: string): boolean {
    if (!this.#is(text)) return false
    this.#at++
    return true
  }

  #expect(text: string): void {
    if (!this.#accept(text)) this.#refuse(`expected ${text} before ${this.#word.text}`)
  }

  #name(): string {
    if (this.#word.kind !== 'name') this.#refuse(`expected a name, not ${this.#word.text}`)
    return this.#words[this.#at++]!.text
  }

  #block(): Statement[] {
    const body: Statement[] = []
    while (this.#word.kind !== 'end' && !['end', 'else', 'elseif'].some((word) => this.#is(word))) {
      const statement = this.#statement()
      body.push(statement)
      this.#accept(';')
      if (statement.kind === 'return' || statement.kind === 'break') break
    }
    return body
  }

  #body(): Statement[] {
    const body = this.#block()
    this.#expect('end')
    return body
  }

  #statement(): Statement {
    const { line } = this.#word
    if (this.#accept('local')) return this.#local(line)
    if (this.#accept('if')) return this.#if(line)
    if (this.#accept('for')) return this.#for(line)
    if (this.#accept('do')) return { kind: 'do', body: this.#body(), line }
    if (this.#accept('break')) return { kind: 'break', line }
    if (this.#accept('while')) {
      const condition = this.#expression()
      this.#expect('do')
      return { kind: 'while', condition, body: this.#body(), line }
    }
    if (this.#accept('return')) {
      const bare = this.#word.kind === 'end' || ['end', 'else', 'elseif', ';'].some((word) => this.#is(word))
      const value = bare ? null : this.#expression()
      if (this.#is(',')) this.#refuse('a function returns one value')
      return { kind: 'return', value, line }
    }
    if (this.#word.kind === 'keyword') this.#refuse(`${this.#word.text} is outside the subset`)
    return this.#assignmentOrCall(line)
  }

  #local(line: number): Statement {
    if (this.#accept('function')) {
      const name = this.#name()
      return { kind: 'function', name, value: this.#function(line), line }
    }
    const names = [this.#name()]
    while (this.#accept(',')) names.push(this.#name())
    const values = this.#accept('=') ? this.#list() : []
    if (values.length > 0 && values.length !== names.length) this.#refuse('as many values as names are needed')
    return { kind: 'local', names, values, line }
  }

  #if(line: number): Statement {
    const arms: { condition: Expression; body: Statement[] }[] = []
    do {
      const condition = this.#expression()
      this.#expect('then')
      arms.push({ condition, body: this.#block() })
    } while (this.#accept('elseif'))
    const otherwise = this.#accept('else') ? this.#block() : []
    this.#expect('end')
    return { kind: 'if', arms, otherwise, line }
  }

  #for(line: number): Statement {
    const name = this.#name()
    if (this.#accept(',')) {
      const item = this.#name()
      this.#expect('in')
      const iterator = this.#expression()
      const isIpairs = iterator.kind === 'call' && iterator.callee.kind === 'name' && iterator.callee.text === 'ipairs'
      if (!isIpairs || iterator.args.length !== 1)
        this.#refuse('only ipairs(t) may be iterated: other orders are not fixed')
      this.#expect('do')
      return { kind: 'each', index: name, name: item, table: iterator.args[0]!, body: this.#body(), line }
    }
    this.#expect('=')
    const from = this.#expression()
    this.#expect(',')
    const to = this.#expression()
    const step = this.#accept(',') ? this.#step() : 1
    this.#expect('do')
    return { kind: 'for', name, from, to, step, body: this.#body(), line }
  }

  #step(): number {
    const sign = this.#accept('-') ? -1 : 1
    const { kind, text } = this.#word
    if (kind !== 'number' || Number(text) === 0) this.#refuse('the step of a for must be a number')
    this.#at++
    return sign * Number(text)
  }

  #assignmentOrCall(line: number): Statement {
    const targets = [this.#suffixed()]
    if (targets[0]!.kind === 'call') return { kind: 'call', call: targets[0]!, line }
    while (this.#accept(',')) targets.push(this.#suffixed())
    if (!this.#accept('=')) this.#refuse(`expected = before ${this.#word.text}`)
    if (targets.some(({ kind }) => kind !== 'name' && kind !== 'index')) this.#refuse('cannot assign to this')
    const values = this.#list()
    if (values.length !== targets.length) this.#refuse('as many values as targets are needed')
    return { kind: 'assign', targets, values, line }
  }

  #list(): Expression[] {
    const list = [this.#expression()]
    while (this.#accept(',')) list.push(this.#expression())
    return list
  }

  #expression(power = 0): Expression {
    let left = this.#unary()
    for (;;) {
      const { text: operator, line } = this.#word
      const powers = binary[operator]
      if (!powers || !this.#is(operator) || powers[0] < power) return left
      this.#at++
      left = { kind: 'binary', operator, left, right: this.#expression(powers[1]), line }
    }
  }

  #unary(): Expression {
    const { text: operator, line } = this.#word
    if (this.#accept('not') || this.#accept('#') || this.#accept('-')) {
      return { kind: 'unary', operator, operand: this.#expression(UNARY), line }
    }
    return this.#simple()
  }

  #simple(): Expression {
    const { kind, text, line } = this.#word
    if (kind === 'number' || kind === 'string') {
      this.#at++
      return { kind, text, line }
    }
    if (this.#is('nil') || this.#is('true') || this.#is('false')) {
      this.#at++
      return { kind: text as 'nil' | 'true' | 'false', line }
    }
    if (this.#accept('function')) return this.#function(line)
    if (this.#is('{')) return this.#table(line)
    return this.#suffixed()
  }

  #suffixed(): Expression {
    const { line } = this.#word
    let value: Expression
    if (this.#accept('(')) {
      value = this.#expression()
      this.#expect(')')
    } else {
      value = { kind: 'name', text: this.#name(), line }
    }
    for (;;) {
      const { line } = this.#word
      if (this.#accept('.')) {
        value = { kind: 'index', table: value, key: { kind: 'string', text: this.#name(), line }, line }
      } else if (this.#accept('[')) {
        value = { kind: 'index', table: value, key: this.#expression(), line }
        this.#expect(']')
      } else if (this.#accept('(')) {
        const args = this.#is(')') ? [] : this.#list()
        this.#expect(')')
        value = { kind: 'call', callee: value, args, line }
      } else if (this.#is(':')) {
        this.#refuse('methods are outside the subset')
      } else {
        return value
      }
    }
  }

  #function(line: number): Expression {
    this.#expect('(')
    const parameters: string[] = []
    if (!this.#accept(')')) {
      do parameters.push(this.#name())
      while (this.#accept(','))
      this.#expect(')')
    }
    return { kind: 'function', parameters, body: this.#body(), line }
  }

  #table(line: number): Expression {
    this.#expect('{')
    const list: Expression[] = []
    const fields: { key: Expression; value: Expression }[] = []
    while (!this.#accept('}')) {
      const next = this.#words[this.#at + 1]!
      if (this.#accept('[')) {
        const key = this.#expression()
        this.#expect(']')
        this.#expect('=')
        fields.push({ key, value: this.#expression() })
      } else if (this.#word.kind === 'name' && next.kind === 'symbol' && next.text === '=') {
        const key: Expression = { kind: 'string', text: this.#name(), line }
        this.#expect('=')
        fields.push({ key, value: this.#expression() })
      } else {
        list.push(this.#expression())
      }
      if (!this.#accept(',') && !this.#accept(';') && !this.#is('}')) this.#refuse('expected , or } in a table')
    }
    return { kind: 'table', list, fields, line }
  }
}
