// @huggingface/jinja's interpreter, bounded and brought closer to Python's jinja2. The library has no limits of its own
// (`range(1e9)` exhausts the heap, nested loops run for ever), so every evaluated node is counted and every text measured.
// Where jinja2 renders something else than the library, the difference is mended here, at the node concerned: printing,
// the scope of loops (syntax.ts), `~` and text filters of undefined, iterating a string, `is iterable`, `format`, strftime.
import { Environment, Interpreter, type Node, type Value } from './jinja.ts'
import { str } from './python-text.ts'
import { strftime } from './strftime.ts'

/** About 0.3 µs each; a message takes about a hundred. */
const MAX_STEPS = 1_000_000
const MAX_TEXT = 32_000_000
const MAX_RANGE = 10_000

/** The fields of the library's syntax nodes that are looked at here. */
type Fields = Node & {
  body: Fields[]
  value: unknown
  operator: { value: string }
  left: Fields
  right: Fields
  operand: Fields
  filter: Fields & { callee?: { value: string }; args?: Fields[] }
  test: { value: string }
  negate: boolean
  iterable: Fields & { lhs: Fields }
}

/** Raised by the template itself through raise_exception(): the message is meant for the client. */
export class TemplateRefusal extends Error {}

/** What a template's author did not foresee, or the limits above. */
export class TemplateFailure extends Error {}

const TEXT_FILTERS = new Set(['trim', 'upper', 'lower', 'title', 'capitalize', 'string', 'replace', 'indent', 'length'])
const ITERABLE = new Set(['ArrayValue', 'TupleValue', 'StringValue', 'ObjectValue', 'KeywordArgumentsValue'])

/** `now` is what strftime_now() reads, in Unix milliseconds. */
export function globalScope(now: number): Environment {
  const scope = new Environment()
  for (const [name, value] of Object.entries({ true: true, True: true, false: false, False: false })) {
    scope.set(name, value)
  }
  for (const name of ['none', 'None']) scope.set(name, null)
  scope.set('raise_exception', (message: unknown) => {
    throw new TemplateRefusal(String(message))
  })
  scope.set('range', range)
  scope.set('strftime_now', (format: unknown) => strftime(now, String(format)))
  return scope
}

function range(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second]
  const length = Math.max(0, Math.ceil((stop - start) / step))
  if (!(length <= MAX_RANGE)) throw new TemplateFailure(`range() of more than ${MAX_RANGE} numbers`)
  return Array.from({ length }, (_, i) => start + i * step)
}

export class BoundedInterpreter extends Interpreter {
  #steps = 0

  override evaluate(statement: Node | undefined, environment: Environment): Value {
    if (++this.#steps > MAX_STEPS) throw new TemplateFailure('the template takes too many steps')
    const node = statement as Fields | undefined
    const value = node === undefined ? super.evaluate(statement, environment) : this.#evaluate(node, environment)
    if (typeof value.value === 'string' && value.value.length > MAX_TEXT) {
      throw new TemplateFailure('the rendered text is too long')
    }
    return value
  }

  #evaluate(node: Fields, environment: Environment): Value {
    switch (node.type) {
      case 'Evaluated':
        return node.value as Value
      case 'Output':
        return printed(this.evaluate(node.value as Node, environment))
      case 'Scope':
        return super.evaluate({ type: 'Program', body: node.body }, new Environment(environment))
      case 'BinaryExpression':
        if (node.operator.value === '~') return this.#concatenate(node, environment)
        break
      case 'FilterExpression':
        return this.#filter(node, environment)
      case 'TestExpression':
        if (node.test.value === 'iterable') return this.#isIterable(node, environment)
        break
      case 'For':
        return this.#for(node, environment)
    }
    return super.evaluate(node, environment)
  }

  #concatenate(node: Fields, environment: Environment): Value {
    return literal(str(this.evaluate(node.left, environment)) + str(this.evaluate(node.right, environment)))
  }

  #filter(node: Fields, environment: Environment): Value {
    const name = String(node.filter.callee?.value ?? node.filter.value)
    const operand = this.evaluate(node.operand, environment)
    if (name === 'format') {
      const values = (node.filter.args ?? []).map((arg) => this.evaluate(arg, environment))
      return literal(formatPercent(str(operand), values.map(str)))
    }
    const known = operand.type === 'UndefinedValue' && TEXT_FILTERS.has(name) ? literal('') : operand
    return super.evaluate({ ...node, operand: evaluated(known) }, environment)
  }

  #isIterable(node: Fields, environment: Environment): Value {
    const iterable = ITERABLE.has(this.evaluate(node.operand, environment).type)
    return literal(node.negate ? !iterable : iterable)
  }

  #for(node: Fields, environment: Environment): Value {
    const filtered = node.iterable.type === 'SelectExpression'
    const source = this.evaluate(filtered ? node.iterable.lhs : node.iterable, environment)
    const items = evaluated(source.type === 'StringValue' ? literal([...String(source.value)]) : source)
    const iterable = filtered ? { ...node.iterable, lhs: items } : items
    return super.evaluate({ ...node, iterable }, environment)
  }
}

function printed(value: Value): Value {
  return value.type === 'StringValue' ? value : literal(str(value))
}

/** A node that stands for a value already computed, so that no expression is evaluated twice. */
function evaluated(value: Value): Fields {
  return { type: 'Evaluated', value } as unknown as Fields
}

function literal(value: unknown): Value {
  return new Environment().set('value', value)
}

/** Python's "%s %d" with as many values as there are fields. */
function formatPercent(format: string, values: string[]): string {
  let next = 0
  return format.replace(/%[sd%]/g, (field) => (field === '%%' ? '%' : (values[next++] ?? field)))
}
