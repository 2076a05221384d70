import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { runCommand } from '../../queue/embedded/commands.ts'
import { Keyspace } from '../../queue/embedded/keyspace.ts'
import { compileLua } from '../../queue/embedded/lua-compiler.ts'
import { runScript } from '../../queue/embedded/lua-redis.ts'
import { formatGeneral } from '../../queue/embedded/lua-runtime.ts'
import { Status, type Value } from '../../queue/embedded/reply.ts'
import { connectRedis } from '../../queue/redis.ts'
import { loadScripts } from '../../queue/scripts.ts'
import { ManualClock } from './clock.ts'
import { noServer, testServer } from './servers.ts'

/** Each returns something a reply can carry; both servers must give the same bytes. */
const snippets = [
  'return 1 + 2 * 3 - 4 / 2 % 3',
  'return -7 % 3 .. "," .. 7 % -3 .. "," .. 5.5 % 2',
  'return {1.9, -1.9, 3, 1e3, 253 == nil}',
  'return tostring(1e15) .. " " .. tostring(123456789012345) .. " " .. tostring(0.1) .. " " .. tostring(1/3)',
  'return tostring(100000000000000) .. " " .. 1e100 .. " " .. -0.00001 .. " " .. 2e9 + 2e9',
  'return string.format("%.0f|%d|%s|%%", 9007199254740991, 42, "x")',
  'return string.format("%.0f", 99 * 2 * 35184372088832 + 7)',
  'return {tonumber("10"), tonumber(" 5 "), tonumber("1e2"), tonumber("-3")}',
  'return {tonumber("x") == nil, tonumber("") == nil, tonumber("1 2") == nil, tonumber(nil) == nil}',
  'return {true, false, 1, "a"}',
  'return {not nil, not 0, not "", not not 1}',
  'return {1 and 2, nil == false, false or "b", nil or false or 3}',
  'local t = {} t[1] = "a" t[2] = "b" t[#t + 1] = "c" return {#t, t[1], t[3]}',
  'local t = {x = 1, ["y z"] = 2, 10, 20; 30} return {t.x, t["y z"], #t, t[3]}',
  'local t = {1, 2, 3} table.insert(t, 1, 0) table.insert(t, 9) return t',
  'return table.concat({1, "b", 3.5}, "-") .. table.concat({}, ",") .. table.concat({"x", "y"})',
  'return {string.sub("hello", 2, -2), string.sub("hello", -3), string.sub("hi", 5), string.sub("abc", 0, 2)}',
  'return {string.rep("ab", 3), string.rep("x", 0), string.rep("x", -1), #string.rep("é", 2)}',
  'return {string.byte("A"), string.byte("AB", 2)}',
  'return {"a" < "b", "Z" < "a", "10" < "9", "" < "a", 2 < 10, 3 <= 3, 4 >= 5, "b" > "a"}',
  'return {1 == 1.0, "1" == 1, nil == nil, "a" ~= "b"}',
  'local s = 0 for i = 1, 10 do s = s + i end for i = 10, 1, -3 do s = s * 2 + i end return s',
  'local r = {} for i = 1, 5 do if i == 4 then break end r[#r + 1] = i end return r',
  'local r = {} for i, v in ipairs({"a", "b"}) do r[#r + 1] = i .. v end return r',
  'local n = 0 while true do n = n + 1 if n > 6 then break end end return n',
  'local function f(n) if n < 2 then return n end return f(n - 1) + f(n - 2) end return f(15)',
  'local function outer() local n = 0 return function() n = n + 1 return n end end local g = outer() g() return g()',
  'local a, b = 1, 2 a, b = b, a return {a, b}',
  'local a = 1 do local a = 2 end local b = a local a = a + 1 return {a, b}',
  'local x if x == nil then x = "set" elseif x then x = 1 else x = 2 end return x',
  'return "5" + "6" .. ""',
  'return 1 .. 2',
  'return {#"é", #"", #{1, 2}}',
  'return {math.floor(-1.5), math.floor(2.9), math.max(1, 5, 3), math.min(4, 2)}',
  'return {type(nil), type(1), type("x"), type({}), type(true)}',
  'return KEYS[1] .. ARGV[2] .. #ARGV .. (ARGV[9] or "none")',
  'return redis.status_reply("FINE")',
  'return {ok = "GOOD"}',
  'return redis.error_reply("ERR my own")',
  'return {err = "ERR as a table"}',
  'redis.call("SET", KEYS[1], 1.5) return redis.call("GET", KEYS[1])',
  'redis.call("SET", KEYS[1], 6966505673424896) return redis.call("GET", KEYS[1])',
  'redis.call("RPUSH", KEYS[1], unpack({"a", "b", 3})) return redis.call("LRANGE", KEYS[1], 0, -1)',
  'return {redis.call("GET", "missing") == false, redis.call("SET", KEYS[1], "x").ok, redis.call("EXISTS", KEYS[1])}',
  'redis.call("SET", KEYS[1], "x") local e = redis.pcall("RPUSH", KEYS[1], "y") return {type(e), string.sub(e.err, 1, 9)}',
  'return redis.call("HMGET", "missing", "a", "b")',
  'redis.call("ZADD", KEYS[1], 6966505673424896, "m", "-inf", "n") return redis.call("ZRANGE", KEYS[1], 0, -1, "WITHSCORES")',
  'redis.call("ZADD", KEYS[1], "0.1", "m", "1e300", "n") return {redis.call("ZSCORE", KEYS[1], "m"), redis.call("ZSCORE", KEYS[1], "n")}',
  '--[[ long\ncomment ]] return 1 -- short',
  "return 'single \\'quoted\\' \\n line'",
]

const refusals: [script: string, message: RegExp][] = [
  ['local x = 1\nx = y', /line 2: y is neither local nor in the library/],
  ['y = 1', /line 1: assignment to a global y/],
  ['for k, v in pairs({}) do end', /only ipairs/],
  ['return 1, 2', /returns one value/],
  ['local a, b = f()', /as many values/],
  ['return string.match("a", "b")', /string\.match is outside the subset/],
  ['return ("x"):rep(2)', /methods are outside/],
  ['repeat local x = 1 until true', /repeat is outside/],
  ['local t = {}\n\nlocal s = t.a.b.c\nprint(s)', /line 4: print is outside the subset/],
  ['return 2 ^ 3', /unexpected \^/],
  ['local function f(...) end', /expected a name/],
  ['if true then return 1', /expected end/],
  ['return "\\q"', /unknown escape/],
  ['return `', /unexpected "`"/],
]

function onEmbedded(script: string): Value {
  const keys = new Keyspace(new ManualClock())
  return runScript(compileLua(script), ['k'], ['a1', 'a2'], (name, args) => runCommand(keys, name, args))
}

function plain(value: unknown): unknown {
  if (value instanceof Status) return value.text
  if (Buffer.isBuffer(value)) return value.toString('latin1')
  return Array.isArray(value) ? value.map(plain) : value
}

const server = await testServer()

describe('our Lua', () => {
  test('gives the replies of real Lua', { skip: server === null && noServer }, async (t) => {
    const redis = await connectRedis(server!.url)
    t.after(async () => {
      await redis.close()
      await server!.close()
    })
    for (const snippet of snippets) {
      const script = `-- é\n${snippet}`
      const [expected, actual] = await Promise.allSettled([
        redis.command('EVAL', script, 1, 'k', 'a1', 'a2'),
        (async () => onEmbedded(script))(),
      ])
      const outcome = (settled: PromiseSettledResult<unknown>) =>
        settled.status === 'fulfilled' ? plain(settled.value) : `error: ${(settled.reason as Error).message}`
      assert.deepEqual(outcome(actual), outcome(expected), snippet)
      await redis.command('FLUSHALL')
    }
  })

  test('refuses what is outside the subset, with its line', () => {
    for (const [script, message] of refusals) assert.throws(() => compileLua(script), message, script)
  })

  test('refuses at run time what would differ from real Lua', () => {
    for (const script of ['local t = {} t[3] = 1', 'local t = {1, 2, 3} t[1] = nil', 'return tostring({})']) {
      assert.throws(() => onEmbedded(script), script)
    }
  })

  test('fails where real Lua fails', () => {
    for (const script of [
      'return nil .. "x"',
      'return {} < 1',
      'return 1 < "2"',
      'local f return f()',
      'return nil + 1',
      'local t return t.x',
      'redis.call("GET")',
    ]) {
      assert.throws(() => onEmbedded(script), script)
    }
  })

  test('compiles every script of the queue', () => {
    for (const { text } of Object.values(loadScripts())) compileLua(text)
  })

  test('prints numbers as C does', () => {
    const cases: [number, number, string][] = [
      [1e14, 14, '1e+14'],
      [99999999999999, 14, '99999999999999'],
      [0.1, 17, '0.10000000000000001'],
      [1e300, 17, '1.0000000000000001e+300'],
      [-2.5, 14, '-2.5'],
      [0.0001, 14, '0.0001'],
      [0.00001, 14, '1e-05'],
      [Infinity, 17, 'inf'],
      [-Infinity, 17, '-inf'],
    ]
    for (const [value, precision, text] of cases) assert.equal(formatGeneral(value, precision), text)
  })
})
