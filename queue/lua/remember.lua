#!lua
--[[
  Binds an Idempotency-Key to a response, once: whoever comes later is told to whose. A response that failed may be
  replaced, by one of those who found it failed.

  KEYS[1]  the key's hash
  ARGV[1]  id of a failed response that may be replaced, or empty     ARGV[2]  ms to remember
  ARGV[3]  hash of the body     ARGV[4]  id     ARGV[5]  seed     ARGV[6]  unix time in s     ARGV[7]  1: it was answered

  Output: {hash of the body, id, seed, unix time, 1 if it was answered} of the response the key stands for
]]
local function read() return redis.call('HMGET', KEYS[1], 'body', 'id', 'seed', 'created', 'done') end

local found = read()
if ARGV[7] == '1' then
  if found[2] ~= ARGV[4] then return { ARGV[3], ARGV[4], ARGV[5], ARGV[6], '1' } end
  redis.call('HSET', KEYS[1], 'done', '1')
  return read()
end
if not found[1] or (found[1] == ARGV[3] and found[2] == ARGV[1]) then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'body', ARGV[3], 'id', ARGV[4], 'seed', ARGV[5], 'created', ARGV[6], 'done', '0')
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  found = read()
end
return found
