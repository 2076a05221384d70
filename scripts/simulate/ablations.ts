// The protocol with one of its parts taken out. The checker must see each of them: a simulation that finds nothing wrong
// with these would find nothing wrong with anything. They change what the simulation runs, never the product.
import { createHash } from 'node:crypto'
import type { Argument, Redis, Reply } from '../../queue/redis.ts'
import type { ScriptName, Scripts } from '../../queue/scripts.ts'
import { scripts } from './server.ts'

export type Ablation = {
  /** What is missing. */
  what: string
  scripts: Scripts
  /** What a gateway gets in place of its connection. */
  wrapGateway(redis: Redis): Redis
}

export const unchanged: Ablation = { what: 'nothing', scripts, wrapGateway: (redis) => redis }

/** Every script that has the lines; at least one must, or the ablation would silently be none. */
function edited(...edits: [from: string, to: string][]): Scripts {
  const missed = edits.find(([from]) => !Object.values(scripts).some(({ text }) => text.includes(from)))
  if (missed) throw new Error(`ablation: no script has the line "${missed[0]}" any more`)
  const changed = Object.values(scripts).map(({ name, text: whole }) => {
    const text = edits.reduce((text, [from, to]) => text.replace(from, to), whole)
    return [name, { name, text, sha: createHash('sha1').update(text).digest('hex') }]
  })
  return Object.fromEntries(changed) as Scripts
}

type Change = {
  /** In place of the answer of a script. */
  script?: (name: ScriptName, ask: () => Promise<Reply>, args: Argument[]) => Promise<Reply>
  message?: (entry: Entry) => Entry
}
/** One job's part of a message (append.lua). */
type Entry = [id: string, epoch: string, base: number[], parts: [number, number, unknown[]][], ending: unknown]

function gateway({ script, message }: Change): Ablation['wrapGateway'] {
  return (redis) => ({
    command: (name, ...args) => redis.command(name, ...args),
    script: (name, keys, args) => {
      const ask = () => redis.script(name, keys, args)
      return script ? script(name, ask, args) : ask()
    },
    subscribe: (channel, listener) =>
      redis.subscribe(channel, (buffer) => {
        if (!message) return listener(buffer)
        const entries = JSON.parse(buffer.toString()) as Entry[]
        listener(Buffer.from(JSON.stringify(entries.map(message))))
      }),
    onReconnect: (listener) => redis.onReconnect(listener),
    close: () => redis.close(),
  })
}

const noFetch: Change['script'] = (name, ask) => (name === 'fetch' ? new Promise(() => {}) : ask())

/** Tokens are taken in the order in which messages come, whatever they say of themselves. */
function believing(): (entry: Entry) => Entry {
  const heard = new Map<string, number>()
  return ([id, , base, parts, ending]) => {
    const believed = parts.map(([choice, , elements]): [number, number, unknown[]] => {
      const from = heard.get(`${id} ${choice}`) ?? 0
      heard.set(`${id} ${choice}`, from + elements.length)
      return [choice, from, elements]
    })
    return [id, '1', base.map(() => 0), believed, ending]
  }
}

/** A journal or a message of another epoch passes for one of the first. */
const oneEpoch: Change = {
  message: ([id, , base, ...rest]) => [id, '1', base.map(() => 0), ...rest],
  script: async (name, ask) => {
    const reply = await ask()
    if (name !== 'fetch') return reply
    return (reply as (Reply[] | null)[]).map((one) => one && [Buffer.from('1'), ...one.slice(1)])
  },
}

export const ablations: Record<string, Ablation> = {
  'pubsub-only': {
    what: 'the gateway has no journal and believes the messages as they come',
    scripts,
    wrapGateway: (redis) => gateway({ script: noFetch, message: believing() })(redis),
  },
  'no-append-check': {
    what: 'append asks neither for owner and epoch nor for the offset',
    scripts: edited(
      ['if f[2] ~= engine or f[3] ~= epoch then return 0 end', ''],
      ["if f[1] ~= 'r' then return 0 end", ''],
      ['if tonumber(ARGV[at + 1]) > length then gap = true end', ''],
      ['for e = at + 3 + lengths[k] - from, at + 2 + count do', 'for e = at + 3, at + 2 + count do'],
    ),
    wrapGateway: unchanged.wrapGateway,
  },
  'no-gap-fill': {
    what: 'the gateway does not fetch from the journal',
    scripts,
    wrapGateway: gateway({ script: noFetch }),
  },
  'no-reconciliation': {
    what: 'a beat does not give back what the engine does not hold',
    scripts: edited(['if not held[id] then', 'if false then']),
    wrapGateway: unchanged.wrapGateway,
  },
  'no-fork-check': {
    what: 'the gateway goes on after a change of epoch without comparing',
    scripts: edited(['if f[1] ~= known then from = 0 end', '']),
    wrapGateway: gateway(oneEpoch),
  },
  'counter-epoch': {
    what: 'an epoch is the last one plus one, whatever the time',
    scripts: edited([
      "return later(plusOne(epoch), time[1] .. string.rep('0', 6 - #time[2]) .. time[2])",
      'return plusOne(epoch)',
    ]),
    wrapGateway: unchanged.wrapGateway,
  },
  'no-repair': {
    what: 'the gateway puts nothing back',
    scripts,
    wrapGateway: gateway({ script: (name, ask) => (name === 'repair' ? new Promise(() => {}) : ask()) }),
  },
  'no-quarantine': {
    what: 'a job that engines died with runs beside others again',
    scripts: edited(['local SUSPECT_AT = 2', 'local SUSPECT_AT = 99']),
    wrapGateway: unchanged.wrapGateway,
  },
}
