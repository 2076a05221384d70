// Chat template -> text, as transformers' apply_chat_template renders it (trim_blocks and lstrip_blocks on, tools and
// documents none unless given). Pure: used by the gateway, by its worker for large conversations, and by
// `pagestream verify --templates`. Templates come from the model's files or the operator, never from a request.
import { BoundedInterpreter, globalScope, TemplateFailure, TemplateRefusal } from './interpreter.ts'
import { type Node, parse, tokenize } from './jinja.ts'
import { rewrite } from './syntax.ts'

/** `messages`, `tools`, special tokens, chat_template_kwargs: whatever the template may refer to. */
export type Variables = Record<string, unknown>

export type Template = { source: string; program: Node }

export { TemplateFailure, TemplateRefusal }

/** Throws TemplateFailure when the text is not a template the library can read. */
export function parseTemplate(source: string): Template {
  try {
    const tokens = tokenize(source, { lstrip_blocks: true, trim_blocks: true })
    return { source, program: rewrite(parse(tokens)) }
  } catch (error) {
    throw new TemplateFailure(`the chat template cannot be parsed: ${(error as Error).message}`)
  }
}

/** `now` in Unix milliseconds, for templates that print the date. */
export function render(template: Template, variables: Variables, now: number): string {
  const scope = globalScope(now)
  for (const [name, value] of Object.entries({ tools: null, documents: null, ...variables })) {
    // setVariable and not set: a variable may shadow a global, as in jinja2.
    scope.setVariable(name, scope.set(`given ${name}`, value))
  }
  try {
    return String(new BoundedInterpreter(scope).run(template.program).value)
  } catch (error) {
    if (error instanceof TemplateRefusal || error instanceof TemplateFailure) throw error
    throw new TemplateFailure((error as Error).message)
  }
}

/** One call from source to text, for checks outside of the gateway. */
export function renderTemplate(source: string, variables: Variables, now = 0): string {
  return render(parseTemplate(source), variables, now)
}
