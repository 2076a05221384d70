// Reads a Dockerfile as far as the tests of infra/ ask: its stages and their instructions.
import { readFileSync } from 'node:fs'
import { root } from '../e2e/processes.ts'

export type Instruction = { name: string; text: string }
export type Image = { stages: Instruction[][]; final: Instruction[]; entrypoint: string[]; port: number }
export type Copy = { from: string | null; sources: string[]; target: string }

export function readDockerfile(path: string): Image {
  const lines = readFileSync(root + path, 'utf8').split('\n')
  const stages: Instruction[][] = []
  for (const line of lines.filter((each) => each !== '' && !each.startsWith('#'))) {
    const [, name, text] = /^([A-Z]+) (\S.*[^\\])$/.exec(line) ?? []
    if (!name || !text) throw new Error(`${path}: every instruction stands on one line, not "${line}"`)
    if (name === 'FROM') stages.push([])
    stages.at(-1)!.push({ name, text })
  }
  const final = stages.at(-1)!
  const one = (name: string) => final.find((each) => each.name === name)!.text
  return { stages, final, entrypoint: JSON.parse(one('ENTRYPOINT')), port: Number(one('EXPOSE')) }
}

export function copies(stage: Instruction[]): Copy[] {
  const lines = stage.filter(({ name }) => name === 'COPY')
  return lines.map(({ text }) => {
    const words = text.split(' ')
    const from = words[0]!.startsWith('--from=') ? words.shift()!.slice('--from='.length) : null
    const target = words.pop()!
    return { from, sources: words, target }
  })
}
