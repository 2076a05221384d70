-- Lanes: streams of waiting jobs, found through a ZSET per pin. An entry's id is `<arrival>-0`; a lane's score is that of
-- its first waiting entry, (class, resumed before new, arrival) in one double: 2^45 arrivals, 100 classes.
-- needs keys.lua, time.lua
local BAND = 35184372088832

local function laneScore(class, resumed, arrival)
  local band = 2 * class
  if not resumed then band = band + 1 end
  return band * BAND + arrival
end

local function arrivalOf(score) return score % BAND end

-- The lane's score moves on to its first entry at or after `start`, or the lane leaves the ZSET.
local function placeLane(pin, lane, score, start)
  local first = redis.call('XRANGE', laneKey(lane), start, '+', 'COUNT', 1)[1]
  if first then
    local arrival = tonumber(string.sub(first[1], 1, #first[1] - 2))
    redis.call('ZADD', lanesKey(pin), digits(score - arrivalOf(score) + arrival), lane)
  else
    redis.call('ZREM', lanesKey(pin), lane)
  end
end

-- job: class, pin, lane, cost, n, adapter, prefixes. Returns the entry id.
local function enterLane(id, job, resumed)
  local stream = laneKey(job.lane)
  if redis.call('EXISTS', stream) == 0 then redis.call('XGROUP', 'CREATE', stream, 'engines', '0', 'MKSTREAM') end
  local arrival = redis.call('HINCRBY', pool, 'seq', 1)
  local entry = digits(arrival) .. '-0'
  redis.call('XADD', stream, entry, 'id', id, 'cost', job.cost, 'n', job.n, 'adapter', job.adapter, 'prefixes', job.prefixes)
  redis.call('ZADD', lanesKey(job.pin), 'NX', digits(laneScore(tonumber(job.class), resumed, arrival)), job.lane)
  return entry
end

-- Waiting or running, the entry goes; the last one takes the stream with it.
local function leaveLane(job)
  local stream = laneKey(job.lane)
  redis.call('XACK', stream, 'engines', job.entry)
  redis.call('XDEL', stream, job.entry)
  local score = redis.call('ZSCORE', lanesKey(job.pin), job.lane)
  if score and digits(arrivalOf(tonumber(score))) .. '-0' == job.entry then
    placeLane(job.pin, job.lane, tonumber(score), '(' .. job.entry)
  end
  if redis.call('XLEN', stream) == 0 then redis.call('DEL', stream) end
end
