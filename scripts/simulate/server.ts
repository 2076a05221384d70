// The Redis server of the simulation: the embedded one with the project's own scripts, and what may befall a server: it
// restarts, comes back without its last writes, runs out of memory.
import { createEmbeddedRedis, type EmbeddedRedis } from '../../queue/embedded.ts'
import type { Argument, Redis, Reply } from '../../queue/redis.ts'
import { loadScripts, type ScriptName, type Scripts } from '../../queue/scripts.ts'
import { Process } from './process.ts'
import type { Timeline } from './timeline.ts'

export const scripts = loadScripts()

/** What Redis still runs at maxmemory. */
const runsWithoutMemory = /^#!lua [^\n]*\b(allow-oom|no-writes)\b/

const traced = new Set<ScriptName>(['enqueue', 'claim', 'append', 'reap', 'release', 'cancel'])

/** The first words of arguments or of a reply. */
function brief(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(brief).join(' ')}]`.slice(0, 160)
  const text = value instanceof Buffer ? value.toString('latin1') : String(value)
  return text.length > 24 ? `${text.slice(0, 24)}…` : text
}

export class Server {
  readonly redis: Redis
  isUp = true
  isFull = false
  /** ms by which its host's clock jumped: Redis goes by the wall clock. */
  skew = 0
  readonly #embedded: EmbeddedRedis
  #restore = () => {}

  constructor(timeline: Timeline, texts: Scripts, trace: ((text: string) => void) | null) {
    const { clock } = new Process('redis', timeline)
    const monotonic = () => timeline.now + this.skew
    const embedded = createEmbeddedRedis({ ...clock, monotonic }, texts)
    this.#embedded = embedded
    this.redis = {
      command: (name, ...args) => embedded.command(name, ...args),
      script: async (name: ScriptName, keys: string[], args: Argument[]): Promise<Reply> => {
        if (this.isFull && !runsWithoutMemory.test(texts[name].text)) {
          throw new Error("OOM command not allowed when used memory > 'maxmemory'.")
        }
        const reply = embedded.script(name, keys, args)
        if (trace && traced.has(name)) {
          reply.then((value) => trace(`redis: ${name} ${brief(args)} -> ${brief(value)}`)).catch(() => {})
        }
        return reply
      },
      subscribe: (channel, listener) => embedded.subscribe(channel, listener),
      onReconnect: (listener) => embedded.onReconnect(listener),
      close: () => embedded.close(),
    }
  }

  keys(): string[] {
    return this.#embedded.keys()
  }

  /** What is written from now on is not on disk yet. */
  remember(): void {
    this.#restore = this.#embedded.snapshot()
  }

  rollBack(): void {
    this.#restore()
  }
}
