// The YAML that infra/ is written in: block maps and lists, flow lists of scalars, plain and single-quoted scalars.
// Whatever readers of YAML disagree about (yes, 1:20, tabs, anchors, duplicate keys) is refused with its line.

export type Yaml = null | boolean | number | string | Yaml[] | { [key: string]: Yaml }

type Line = { number: number; indent: number; text: string }

export function parseYaml(text: string): Yaml[] {
  const documents: Line[][] = [[]]
  text.split('\n').forEach((raw, index) => {
    if (raw === '---') documents.push([])
    else if (!/^ *(#|$)/.test(raw)) {
      const content = raw.trimStart()
      documents.at(-1)!.push({ number: index + 1, indent: raw.length - content.length, text: content })
    }
  })
  return documents.map((lines) => {
    const node = parseNode(lines, 0)
    if (lines[0]) refuse(lines[0], 'the indentation fits nothing above')
    return node
  })
}

/** Takes from the front of `lines` what belongs to the node. */
function parseNode(lines: Line[], indent: number): Yaml {
  return lines[0]?.text.startsWith('- ') ? parseList(lines, indent) : parseMap(lines, indent)
}

function parseList(lines: Line[], indent: number): Yaml[] {
  const list: Yaml[] = []
  while (lines[0]?.indent === indent) {
    const line = lines[0]
    if (!line.text.startsWith('- ')) refuse(line, 'a list goes on with "- "')
    lines[0] = { ...line, indent: indent + 2, text: line.text.slice(2) }
    list.push(splitKey(lines[0]) ? parseMap(lines, indent + 2) : parseScalar(lines.shift()!, line.text.slice(2)))
  }
  return list
}

function parseMap(lines: Line[], indent: number): Yaml {
  const map: { [key: string]: Yaml } = {}
  while (lines[0]?.indent === indent) {
    const line = lines.shift()!
    const [key, value] = splitKey(line) ?? refuse(line, 'expected "key: value"')
    if (key in map) refuse(line, `${key} is there twice`)
    if (value !== '') map[key] = parseScalar(line, value)
    else map[key] = lines[0] && lines[0].indent > indent ? parseNode(lines, indent + 2) : null
  }
  return map
}

function splitKey({ text }: Line): [key: string, value: string] | null {
  const match = /^([\w$./-]+):(?: (.*))?$/.exec(text)
  return match && [match[1]!, match[2] ?? '']
}

function parseScalar(line: Line, text: string): Yaml {
  if (text === '{}') return {}
  if (text === '[]') return []
  const list = /^\[(.+)\]$/.exec(text)
  if (list) return list[1]!.split(', ').map((each) => parseScalar(line, each))
  const quoted = /^'((?:[^']|'')*)'$/.exec(text)
  if (quoted) return quoted[1]!.replaceAll("''", "'")
  if (text === 'true' || text === 'false') return text === 'true'
  if (/^(0|-?[1-9]\d*)$/.test(text)) return Number(text)
  const isPlain = /^[\w./$-]/.test(text) && !/: |:$| #|['"[\],]/.test(text)
  const isAmbiguous = /^(yes|no|on|off|y|n|null|-?\d+([.:e]\d*)?)$/i.test(text)
  if (!isPlain || isAmbiguous) refuse(line, `write '${text}' in single quotes`)
  return text
}

function refuse(line: Line, why: string): never {
  throw new Error(`line ${line.number}: ${why}`)
}
