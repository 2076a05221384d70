// Errors of the queue that a program's user can cure; main prints their message and exits.

/** The Redis server is absent, too old, or configured in a way that loses jobs. */
export class RedisUnusable extends Error {
  override name = 'RedisUnusable'
}
