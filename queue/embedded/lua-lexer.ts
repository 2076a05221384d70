// Words of the Lua 5.1 subset in queue/lua (see lua-parser.ts for what is in it).

export type Word = {
  kind: 'name' | 'keyword' | 'string' | 'number' | 'symbol' | 'end'
  text: string
  line: number
}

export class LuaSyntaxError extends Error {
  override name = 'LuaSyntaxError'
  constructor(line: number, message: string) {
    super(`line ${line}: ${message}`)
  }
}

const keywords = new Set(
  (
    'and break do else elseif end false for function if in local nil not or repeat return then true until while' +
    ' goto'
  ) // reserved from 5.2 on: a name that would tie us to one version
    .split(' '),
)

const pattern =
  /(?<space>\s+)|(?<comment>--(?:\[\[[\s\S]*?\]\]|[^\n]*))|(?<name>[A-Za-z_]\w*)|(?<number>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")|(?<symbol>\.\.\.|\.\.|==|~=|<=|>=|[-+*/%#<>=(){}[\];:,.^])/y

const escapes: Record<string, string> = { n: '\n', t: '\t', r: '\r', '\\': '\\', "'": "'", '"': '"' }

export function lex(text: string): Word[] {
  const words: Word[] = []
  let line = 1
  pattern.lastIndex = 0
  while (pattern.lastIndex < text.length) {
    const at = pattern.lastIndex
    const groups = pattern.exec(text)?.groups
    if (!groups) throw new LuaSyntaxError(line, `unexpected ${JSON.stringify(text[at])}`)
    const [kind, match] = Object.entries(groups).find(([, value]) => value !== undefined)!
    if (kind === 'name') words.push({ kind: keywords.has(match) ? 'keyword' : 'name', text: match, line })
    else if (kind === 'number' || kind === 'symbol') words.push({ kind, text: match, line })
    else if (kind === 'string') words.push({ kind, text: unquote(match, line), line })
    line += match.split('\n').length - 1
  }
  words.push({ kind: 'end', text: 'the end of the script', line })
  return words
}

function unquote(literal: string, line: number): string {
  return literal.slice(1, -1).replace(/\\(.)/g, (_, letter: string) => {
    const value = escapes[letter]
    if (value === undefined) throw new LuaSyntaxError(line, `unknown escape \\${letter}`)
    return value
  })
}
