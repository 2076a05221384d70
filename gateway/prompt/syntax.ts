// Rewrites a parsed template, once, where @huggingface/jinja's tree says less than jinja2 means:
//   an expression that is printed becomes `Output`, so that it is printed as Python prints it;
//   the body of a loop becomes a `Scope`: what one turn sets, the next does not see.
// interpreter.ts evaluates both.
import type { Node } from './jinja.ts'

const STATEMENTS = new Set([
  ...['Program', 'If', 'For', 'Set', 'Macro', 'CallStatement', 'FilterStatement'],
  ...['Break', 'Continue', 'Comment'],
])

export function rewrite(node: Node): Node {
  for (const field of ['body', 'alternate', 'defaultBlock']) {
    const block = node[field]
    if (Array.isArray(block)) node[field] = block.map(rewriteStatement)
  }
  if (node.type === 'For') node.body = [derived(node, { type: 'Scope', body: node.body })]
  return node
}

function rewriteStatement(node: Node): Node {
  if (STATEMENTS.has(node.type)) return rewrite(node)
  // Text between tags is most of a template and prints as it is.
  return node.type === 'StringLiteral' ? node : derived(node, { type: 'Output', value: node })
}

/** A node the library still takes for one of its own: it looks through macros for the names they use. */
function derived(origin: Node, fields: Node): Node {
  return Object.assign(Object.create(Object.getPrototypeOf(origin)), fields)
}
