-- A job's life: q waiting, r running, then d done or f failed or c cancelled.
-- needs keys.lua, time.lua, lane.lua, readers.lua
local function loadJob(id)
  local f = redis.call('HMGET', jobKey(id), 'st', 'own', 'ep', 'base', 'gw', 'class', 'pin', 'lane', 'entry', 'cost', 'n',
    'adapter', 'prefixes', 'att', 'rev', 'resume', 'ttl', 'at', 'dl', 'left', 'grace')
  if not f[1] then return nil end
  return { state = f[1], owner = f[2], epoch = f[3], base = f[4], gateway = f[5], class = f[6], pin = f[7], lane = f[8],
    entry = f[9], cost = f[10], n = f[11], adapter = f[12], prefixes = f[13], attempts = tonumber(f[14]), revision = f[15],
    resumePin = f[16], ttl = f[17], admitted = f[18], deadline = tonumber(f[19]), left = tonumber(f[20]), grace = tonumber(f[21]) }
end

-- Out of the queue, or out of its engine's hands.
local function leave(id, job)
  leaveLane(job)
  if job.state == 'q' then
    redis.call('ZREM', waiting, id)
    redis.call('ZREM', deadlines, id)
    redis.call('HINCRBY', pool, 'tokens', '-' .. job.cost)
  else
    redis.call('ZREM', heldKey(job.owner), id)
    redis.call('HINCRBY', pool, 'running', -1)
  end
end

-- Keeps owner and epoch, so that a repeated last append is recognised; the journal stays readable for a while.
local function endJob(id, job, state, ending)
  leave(id, job)
  redis.call('HSET', jobKey(id), 'st', state, 'end', ending)
  redis.call('HDEL', jobKey(id), 'p', 'spec')
  redis.call('PEXPIRE', jobKey(id), job.ttl)
  for choice = 0, tonumber(job.n) - 1 do redis.call('PEXPIRE', journalKey(id, choice), job.ttl) end
end

local function failJob(id, job, ending)
  endJob(id, job, 'f', ending)
  local message = '[["' .. id .. '","' .. job.epoch .. '",' .. job.base .. ',[],' .. ending .. ']]'
  for _, gateway in ipairs(split(job.gateway)) do redis.call('PUBLISH', gatewayChannel(gateway), message) end
end

-- Nobody has wanted it for its grace: it ends unread.
local function endOrphan(id, job)
  endJob(id, job, 'c', '{"code":"request_failed","message":"the request was cancelled: nobody read its answer"}')
end

local function hasStarted(id, job)
  for choice = 0, tonumber(job.n) - 1 do
    if redis.call('EXISTS', journalKey(id, choice)) == 1 then return true end
  end
  return false
end

local SUSPECT_AT = 2
local ALONE = '|alone'

-- A job waits again, ahead of new ones of its class. With tokens in its journal it is pinned to the numerics
-- that made them, and its deadline, which is about starting, no longer counts. One death is the machine's; after a second
-- the job is a suspect and runs alone, so that only the cause of further deaths comes to the limit.
local function requeueJob(id, job, attempts)
  leave(id, job)
  local started = hasStarted(id, job)
  job.pin = job.revision
  if started then job.pin = job.resumePin end
  if attempts >= SUSPECT_AT then job.pin = job.pin .. ALONE end
  job.lane = job.class .. ':' .. job.pin .. ':r'
  local entry = enterLane(id, job, true)
  redis.call('HSET', jobKey(id), 'st', 'q', 'own', '', 'att', attempts, 'pin', job.pin, 'lane', job.lane, 'entry', entry)
  redis.call('ZADD', waiting, job.admitted, id)
  if job.deadline > 0 and not started then redis.call('ZADD', deadlines, job.deadline, id) end
  redis.call('HINCRBY', pool, 'tokens', job.cost)
end
