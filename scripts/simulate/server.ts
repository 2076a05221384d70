// The Redis server of the simulation: the embedded one with the project's own scripts, and what may befall a server: it
// restarts, comes back without its last writes, runs out of memory.
import { createEmbeddedRedis, type EmbeddedRedis } from '../../queue/embedded.ts'
import type { Argument, Redis, Reply } from '../../queue/redis.ts'
import { loadScripts, type ScriptName, type Scripts } from '../../queue/scripts.ts'
import type { Process } from './process.ts'

export const scripts = loadScripts()

/** What Redis still runs at maxmemory. */
const runsWithoutMemory = /^#!lua [^\n]*\b(allow-oom|no-writes)\b/

export class Server {
  readonly redis: Redis
  isUp = true
  isFull = false
  readonly #embedded: EmbeddedRedis
  #restore = () => {}

  constructor(process: Process, texts: Scripts) {
    const embedded = createEmbeddedRedis(process.clock, texts)
    this.#embedded = embedded
    this.redis = {
      command: (name, ...args) => embedded.command(name, ...args),
      script: async (name: ScriptName, keys: string[], args: Argument[]): Promise<Reply> => {
        if (this.isFull && !runsWithoutMemory.test(texts[name].text)) {
          throw new Error("OOM command not allowed when used memory > 'maxmemory'.")
        }
        return embedded.script(name, keys, args)
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
