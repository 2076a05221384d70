// Errors of the queue that have a name: one that a program's user can cure, whereupon main prints it and exits, and one
// that passes by itself.

/** The Redis server is absent, too old, or configured in a way that loses jobs. */
export class RedisUnusable extends Error {
  override name = 'RedisUnusable'
}

/** The connection is down and being made again; the command was not sent. */
export class RedisUnreachable extends Error {
  override name = 'RedisUnreachable'
  constructor() {
    super('Redis cannot be reached at the moment')
  }
}
