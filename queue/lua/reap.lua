#!lua flags=allow-oom
--[[
  Moves the work of engines whose lease ran out back to the queue, with a strike; a job with four strikes, the last two of
  them alone, is taken for the cause of the deaths: it fails and is put on the list of the dead. Fails waiting jobs past
  their deadline, which no claim comes by when no engine runs. A gateway says by it that it lives.

  KEYS[1]  {q:<model>}
  ARGV[1]  gateway, or empty     ARGV[2..] ended jobs that it is still reading: they stay readable

  Output: number of jobs moved or failed
]]
-- @include keys
-- @include time
-- @include lane
-- @include readers
-- @include job

local MOST_STRIKES = 4
-- Deadlines handled in one go; the next call takes the rest.
local BATCH = 100
local MOST_DEAD = 1000
local FORGET_MS = 3600000

-- What an operator needs to find the request again, and none of its text.
local function bury(id, job, attempts)
  local f = redis.call('HMGET', jobKey(id), 'tenant', 'p', 'spec')
  local tokens = 0
  for choice = 0, tonumber(job.n) - 1 do tokens = tokens + redis.call('LLEN', journalKey(id, choice)) end
  redis.call('ZADD', dead, digits(now), '{"id":"' .. id .. '","tenant":"' .. f[1] .. '","revision":"' .. job.revision ..
    '","digest":"' .. redis.sha1hex((f[2] or '') .. (f[3] or '')) .. '","deaths":' .. attempts .. ',"tokens":' .. tokens ..
    ',"at":' .. digits(now) .. '}')
  if redis.call('ZCARD', dead) > MOST_DEAD then redis.call('ZREM', dead, redis.call('ZRANGE', dead, 0, 0)[1]) end
end

if ARGV[1] ~= '' then
  sawGateway(ARGV[1])
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', gateways, '-inf', digits(now - FORGET_MS))) do
    redis.call('ZREM', gateways, name)
  end
end
for i = 2, #ARGV do
  local f = redis.call('HMGET', jobKey(ARGV[i]), 'st', 'ttl', 'n')
  if f[1] and f[1] ~= 'q' and f[1] ~= 'r' then
    redis.call('PEXPIRE', jobKey(ARGV[i]), f[2])
    for choice = 0, tonumber(f[3]) - 1 do redis.call('PEXPIRE', journalKey(ARGV[i], choice), f[2]) end
  end
end

local touched = 0
for _, engine in ipairs(redis.call('ZRANGEBYSCORE', engines, '-inf', digits(now))) do
  for _, id in ipairs(redis.call('ZRANGE', heldKey(engine), 0, -1)) do
    local job = loadJob(id)
    if job then
      local attempts = job.attempts + 1
      if attempts >= MOST_STRIKES then
        bury(id, job, attempts)
        failJob(id, job, '{"code":"request_failed","message":"the engines running this request stopped ' .. attempts .. ' times"}')
      else
        requeueJob(id, job, attempts)
      end
      touched = touched + 1
    end
  end
  redis.call('DEL', heldKey(engine))
  redis.call('ZREM', engines, engine)
end
if touched > 0 then redis.call('PUBLISH', bell, '') end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', digits(now), 'LIMIT', 0, BATCH)) do
  local job = loadJob(id)
  redis.call('ZREM', deadlines, id)
  if job then
    failJob(id, job, '{"code":"capacity_timeout","message":"no engine was free before the deadline of the request"}')
    touched = touched + 1
  end
end
return touched
