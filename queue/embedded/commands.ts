// The commands of the embedded server: those that queue/ uses, with the options it uses. Replies equal Redis 7's byte for
// byte (test/queue/differential.test.ts); what is not here is refused by name.

import type { Keyspace } from './keyspace.ts'
import { formatGeneral } from './lua-runtime.ts'
import { float, integer, OK, RedisError, Status, type Value } from './reply.ts'
import type { Bound } from './sorted-set.ts'
import { idText, parseId } from './stream-log.ts'

type Command = { least: number; run: (keys: Keyspace, args: string[]) => Value }

const syntaxError = (): RedisError => new RedisError('ERR syntax error')
const count = (flags: boolean[]): number => flags.filter(Boolean).length

/** `name`: at least `least` arguments. */
function command(least: number, run: (keys: Keyspace, args: string[]) => Value): Command {
  return { least, run }
}

function ifEmpty(keys: Keyspace, key: string, size: number): void {
  if (size === 0) keys.delete(key)
}

/** Start and stop inclusive, negative from the end. */
function slice(list: string[], start: number, stop: number): string[] {
  const from = start < 0 ? Math.max(0, list.length + start) : start
  const to = stop < 0 ? list.length + stop : stop
  return list.slice(from, Math.max(from, to + 1))
}

const scoreText = (score: number): string => formatGeneral(score, 17)

function bound(text: string): Bound {
  const exclusive = text.startsWith('(')
  try {
    return { score: float(exclusive ? text.slice(1) : text), exclusive }
  } catch {
    throw new RedisError('ERR min or max is not a float')
  }
}

/** An end of XRANGE: `-`, `+`, an id, or `(` and an id. */
function rangeEnd(text: string, missing: number): [id: { ms: number; seq: number }, exclusive: boolean] {
  if (text === '-') return [{ ms: 0, seq: 0 }, false]
  if (text === '+') return [{ ms: Infinity, seq: Infinity }, false]
  return text.startsWith('(') ? [parseId(text.slice(1), missing), true] : [parseId(text, missing), false]
}

const entryReply = (entry: { id: { ms: number; seq: number }; fields: string[] }): Value => [
  idText(entry.id),
  entry.fields,
]

const keyCommands: Record<string, Command> = {
  PING: command(0, () => new Status('PONG')),
  TIME: command(0, (keys) => {
    const micros = Math.floor(keys.now() * 1000)
    return [String(Math.floor(micros / 1e6)), String(micros % 1e6)]
  }),
  DBSIZE: command(0, (keys) => keys.size),
  FLUSHALL: command(0, (keys) => {
    keys.clear()
    return OK
  }),
  EXISTS: command(1, (keys, args) => count(args.map((key) => keys.has(key)))),
  DEL: command(1, (keys, args) => count(args.map((key) => keys.delete(key)))),
  PEXPIRE: command(2, (keys, [key, ms, ...options]) => {
    if (options.length > 0) throw syntaxError()
    const lifetime = integer(ms!)
    if (!keys.has(key!)) return 0
    if (lifetime <= 0) keys.delete(key!)
    else keys.expireAt(key!, keys.now() + lifetime)
    return 1
  }),
  PTTL: command(1, (keys, [key]) => {
    if (!keys.has(key!)) return -2
    const at = keys.expiryOf(key!)
    return at === undefined ? -1 : Math.ceil(at - keys.now())
  }),
  GET: command(1, (keys, [key]) => keys.string(key!) ?? null),
  SET: command(2, (keys, [key, text, ...options]) => {
    if (options.length > 0) throw syntaxError()
    keys.setString(key!, text!)
    return OK
  }),
}

const hashCommands: Record<string, Command> = {
  HSET: command(3, (keys, [key, ...pairs]) => {
    if (pairs.length % 2 !== 0) throw new RedisError("ERR wrong number of arguments for 'hset' command")
    const hash = keys.makeHash(key!)
    const before = hash.size
    for (let i = 0; i < pairs.length; i += 2) hash.set(pairs[i]!, pairs[i + 1]!)
    return hash.size - before
  }),
  HGET: command(2, (keys, [key, field]) => keys.hash(key!)?.get(field!) ?? null),
  HMGET: command(2, (keys, [key, ...fields]) => {
    const hash = keys.hash(key!)
    return fields.map((field) => hash?.get(field) ?? null)
  }),
  HVALS: command(1, (keys, [key]) => [...(keys.hash(key!)?.values() ?? [])]),
  HDEL: command(2, (keys, [key, ...fields]) => {
    const hash = keys.hash(key!)
    if (!hash) return 0
    const deleted = count(fields.map((field) => hash.delete(field)))
    ifEmpty(keys, key!, hash.size)
    return deleted
  }),
  HINCRBY: command(3, (keys, [key, field, by]) => {
    const amount = integer(by!)
    const hash = keys.makeHash(key!)
    const value = integer(hash.get(field!) ?? '0', 'ERR hash value is not an integer') + amount
    hash.set(field!, String(value))
    return value
  }),
}

const listCommands: Record<string, Command> = {
  RPUSH: command(2, (keys, [key, ...elements]) => keys.makeList(key!).push(...elements)),
  LLEN: command(1, (keys, [key]) => keys.list(key!)?.length ?? 0),
  LRANGE: command(3, (keys, [key, first, last]) => {
    const [start, stop] = [integer(first!), integer(last!)]
    return slice(keys.list(key!) ?? [], start, stop)
  }),
}

const sortedSetCommands: Record<string, Command> = {
  ZADD: command(3, (keys, [key, ...rest]) => {
    const onlyNew = rest[0]?.toUpperCase() === 'NX'
    const pairs = onlyNew ? rest.slice(1) : rest
    if (pairs.length === 0 || pairs.length % 2 !== 0) throw syntaxError()
    const scores = pairs.filter((_, i) => i % 2 === 0).map(float)
    const set = keys.makeSortedSet(key!)
    const added = scores.map((score, i) => {
      const member = pairs[2 * i + 1]!
      return onlyNew && set.score(member) !== undefined ? false : set.set(member, score)
    })
    return count(added)
  }),
  ZREM: command(2, (keys, [key, ...members]) => {
    const set = keys.sortedSet(key!)
    if (!set) return 0
    const removed = count(members.map((member) => set.delete(member)))
    ifEmpty(keys, key!, set.size)
    return removed
  }),
  ZSCORE: command(2, (keys, [key, member]) => {
    const score = keys.sortedSet(key!)?.score(member!)
    return score === undefined ? null : scoreText(score)
  }),
  ZCARD: command(1, (keys, [key]) => keys.sortedSet(key!)?.size ?? 0),
  ZCOUNT: command(3, (keys, [key, min, max]) => {
    const [low, high] = [bound(min!), bound(max!)]
    return keys.sortedSet(key!)?.rangeByScore(low, high).length ?? 0
  }),
  ZRANGE: command(3, (keys, [key, first, last, ...options]) => {
    const withScores = options[0]?.toUpperCase() === 'WITHSCORES'
    if (options.length > (withScores ? 1 : 0)) throw syntaxError()
    const [start, stop] = [integer(first!), integer(last!)]
    const items = keys.sortedSet(key!)?.range(start, stop) ?? []
    return items.flatMap(({ member, score }) => (withScores ? [member, scoreText(score)] : [member]))
  }),
  ZRANGEBYSCORE: command(3, (keys, [key, min, max, ...options]) => {
    const limited = options.length === 3 && options[0]!.toUpperCase() === 'LIMIT'
    if (options.length > 0 && !limited) throw syntaxError()
    const [offset, most] = limited ? [integer(options[1]!), integer(options[2]!)] : [0, -1]
    const [low, high] = [bound(min!), bound(max!)]
    const items = keys.sortedSet(key!)?.rangeByScore(low, high) ?? []
    if (offset < 0) return []
    return items.slice(offset, most < 0 ? undefined : offset + most).map(({ member }) => member)
  }),
}

const streamCommands: Record<string, Command> = {
  XADD: command(4, (keys, [key, id, ...fields]) => {
    const parsed = parseId(id!, 0)
    if (fields.length % 2 !== 0) throw new RedisError("ERR wrong number of arguments for 'xadd' command")
    if (idText(parsed) === '0-0') throw new RedisError('ERR The ID specified in XADD must be greater than 0-0')
    const isNew = !keys.has(key!)
    try {
      keys.makeStream(key!).add(parsed, fields)
    } catch (error) {
      if (isNew) keys.delete(key!)
      throw error
    }
    return idText(parsed)
  }),
  XDEL: command(2, (keys, [key, ...ids]) => {
    const stream = keys.stream(key!)
    if (!stream) return 0
    const parsed = ids.map((id) => parseId(id, 0))
    return count(parsed.map((id) => stream.delete(id)))
  }),
  XLEN: command(1, (keys, [key]) => keys.stream(key!)?.length ?? 0),
  XRANGE: command(3, (keys, [key, start, end, ...options]) => {
    const limited = options.length === 2 && options[0]!.toUpperCase() === 'COUNT'
    if (options.length > 0 && !limited) throw syntaxError()
    const [from, fromExclusive] = rangeEnd(start!, 0)
    const [to, toExclusive] = rangeEnd(end!, Infinity)
    const most = limited ? integer(options[1]!) : Infinity
    const stream = keys.stream(key!)
    if (!stream) return []
    return most <= 0 ? null : stream.range(from, fromExclusive, to, toExclusive, most).map(entryReply)
  }),
  XGROUP: command(4, (keys, [verb, key, group, from, ...options]) => {
    if (verb!.toUpperCase() !== 'CREATE') throw new RedisError(`ERR embedded Redis has XGROUP CREATE only, not ${verb}`)
    const makes = options[0]?.toUpperCase() === 'MKSTREAM'
    if (options.length > (makes ? 1 : 0)) throw syntaxError()
    const stream = makes ? keys.makeStream(key!) : keys.stream(key!)
    if (!stream) {
      throw new RedisError(
        'ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option' +
          ' to create an empty stream automatically.',
      )
    }
    stream.createGroup(group!, from!)
    return OK
  }),
  XREADGROUP: command(6, (keys, args) => {
    const [word, group, consumer, ...options] = args
    const most = options[0]?.toUpperCase() === 'COUNT' ? integer(options.splice(0, 2)[1]!) : Infinity
    const [streams, key, id, ...more] = options
    if (word!.toUpperCase() !== 'GROUP' || streams?.toUpperCase() !== 'STREAMS' || id !== '>' || more.length > 0) {
      throw new RedisError('ERR embedded Redis has XREADGROUP GROUP g c [COUNT n] STREAMS key > only')
    }
    const stream = keys.stream(key!)
    const found = stream?.groups.get(group!)
    if (!stream || !found) {
      throw new RedisError(`NOGROUP No such key '${key}' or consumer group '${group}' in XREADGROUP with GROUP option`)
    }
    const entries = stream.readNew(found, consumer!, most)
    return entries.length > 0 ? [[key!, entries.map(entryReply)]] : null
  }),
  XACK: command(3, (keys, [key, group, ...ids]) => {
    const pending = keys.stream(key!)?.groups.get(group!)?.pending
    if (!pending) return 0
    const texts = ids.map((id) => idText(parseId(id, 0)))
    return count(texts.map((id) => pending.delete(id)))
  }),
  XPENDING: command(2, (keys, [key, group, ...options]) => {
    if (options.length > 0) throw new RedisError('ERR embedded Redis has XPENDING key group only')
    const found = keys.stream(key!)?.groups.get(group!)
    if (!found) throw new RedisError(`NOGROUP No such key '${key}' or consumer group '${group}'`)
    const pending = [...found.pending.values()].sort((a, b) => a.id.ms - b.id.ms || a.id.seq - b.id.seq)
    if (pending.length === 0) return [0, null, null, null]
    const consumers = Map.groupBy(pending, ({ consumer }) => consumer)
    const counts = [...consumers].map(([name, entries]) => [name, String(entries.length)])
    return [pending.length, idText(pending[0]!.id), idText(pending.at(-1)!.id), counts.sort()]
  }),
}

const commands: Record<string, Command> = {
  ...keyCommands,
  ...hashCommands,
  ...listCommands,
  ...sortedSetCommands,
  ...streamCommands,
}

export function runCommand(keys: Keyspace, name: string, args: string[]): Value {
  const upper = name.toUpperCase()
  if (!Object.hasOwn(commands, upper)) {
    throw new RedisError(
      `ERR embedded Redis has no command ${upper}; start with a Redis server (--redis-url) to use it`,
    )
  }
  const { least, run } = commands[upper]!
  if (args.length < least) throw new RedisError(`ERR wrong number of arguments for '${upper.toLowerCase()}' command`)
  return run(keys, args)
}
