// The parts of @huggingface/jinja used here, typed by hand: the package's own declarations import without extensions,
// which module resolution `nodenext` does not find.
import * as library from '@huggingface/jinja'

export type Value = { type: string; value: unknown; toString(): string }

/** A syntax node; which fields it has depends on `type`. */
export type Node = { type: string; [field: string]: unknown }

export type Environment = {
  /** Declares a global from a JavaScript value and returns it as the interpreter's own. */
  set(name: string, value: unknown): Value
  setVariable(name: string, value: Value): Value
}

type Interpreter = {
  run(program: Node): Value
  evaluate(node: Node | undefined, environment: Environment): Value
}

type Library = {
  Environment: new (parent?: Environment) => Environment
  Interpreter: new (environment: Environment) => Interpreter
  tokenize(source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown[]
  parse(tokens: unknown[]): Node
}

export const { Environment, Interpreter, tokenize, parse } = library as unknown as Library
