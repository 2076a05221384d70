#!lua flags=allow-oom
--[[
  Renews an engine's lease and reconciles: what Redis thinks it holds with what it says it holds.

  KEYS[1]  {q:<model>}
  ARGV[1]  engine     ARGV[2] lease in ms     ARGV[3] steps done     ARGV[4] revision     ARGV[5] numerics
  ARGV[6..] ids of the jobs it holds

  Output: those of them that are not its own any more: cancelled, ended, moved, or by now read by nobody
]]
-- @include keys
-- @include time
-- @include lane
-- @include readers
-- @include job

-- A claim's reply may still be on its way to the engine; after this long it counts as lost.
local GRACE_MS = 600

local engine = ARGV[1]
redis.call('ZADD', engines, digits(now + tonumber(ARGV[2])), engine)
redis.call('HSET', engineKey(engine), 'steps', ARGV[3], 'rev', ARGV[4], 'num', ARGV[5])
redis.call('PEXPIRE', engineKey(engine), digits(10 * tonumber(ARGV[2])))

local held, foreign = {}, {}
for i = 6, #ARGV do
  local id = ARGV[i]
  held[id] = true
  local f = redis.call('HMGET', jobKey(id), 'st', 'own', 'gw', 'left', 'grace')
  local own = f[1] == 'r' and f[2] == engine
  if own and isOrphan(f[3], tonumber(f[4]), tonumber(f[5])) then
    endOrphan(id, loadJob(id))
    own = false
  end
  if not own then foreign[#foreign + 1] = id end
end

local returned = false
for _, id in ipairs(redis.call('ZRANGEBYSCORE', heldKey(engine), '-inf', digits(now - GRACE_MS))) do
  if not held[id] then
    local job = loadJob(id)
    if job then
      requeueJob(id, job, job.attempts)
      returned = true
    else
      redis.call('ZREM', heldKey(engine), id)
    end
  end
end
if returned then redis.call('PUBLISH', bell, '') end
return foreign
