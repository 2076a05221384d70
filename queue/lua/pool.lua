#!lua flags=no-writes
--[[
  The state of a pool in one consistent look (models.ts, poolState).

  KEYS[1]  {q:<model>}

  Output: {waiting jobs, their cost in tokens, running jobs, engines alive, ms of last admission, age in ms of the oldest}
]]
-- @include keys
-- @include time

local f = redis.call('HMGET', pool, 'tokens', 'running', 'use')
local oldest = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
local age = 0
if oldest[1] then age = math.max(0, now - tonumber(oldest[2])) end
return {
  redis.call('ZCARD', waiting),
  tonumber(f[1] or '0'),
  tonumber(f[2] or '0'),
  redis.call('ZCOUNT', engines, '(' .. digits(now), '+inf'),
  tonumber(f[3] or '0'),
  age,
}
