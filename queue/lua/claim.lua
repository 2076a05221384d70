#!lua flags=allow-oom
--[[
  Gives waiting jobs to an engine: the only place that chooses. Today's policy: class, then resumed before new, then
  arrival; it stops at the first job that does not fit, so that large jobs are not passed over for ever. The engine's
  cached prefixes and the entries' block hashes are here for the policies to come. Allowed under OOM: only work that
  goes on frees memory.

  KEYS[1]  {q:<model>}
  ARGV[1]  engine             ARGV[2]  pin of new work (revision)    ARGV[3]  pin of resumed work (revision/numerics)
  ARGV[4]  free KV tokens     ARGV[5]  free sequences                ARGV[6..] hashes of prefixes it holds

  Output: per job {id, epoch, prompt, spec, journal of choice 0, journal of choice 1, ...}; {} also without a lease
]]
-- @include keys
-- @include time
-- @include lane
-- @include job

local engine = ARGV[1]
local lease = redis.call('ZSCORE', engines, engine)
if not lease or tonumber(lease) <= now then return {} end

local tokens, sequences = tonumber(ARGV[4]), tonumber(ARGV[5])
local pins = { ARGV[2], ARGV[3] }

-- Epochs are decimal strings and stay strings: as Lua numbers they would print rounded.
local function plusOne(epoch)
  local last = string.sub(epoch, -1)
  local rest = string.sub(epoch, 1, -2)
  if last ~= '9' then return rest .. (tonumber(last) + 1) end
  if rest == '' then return '10' end
  return plusOne(rest) .. '0'
end

-- max(epoch + 1, microseconds of Redis TIME): grows even if Redis restarts from an older state.
local function nextEpoch(epoch)
  local following = plusOne(epoch)
  local micros = time[1] .. string.rep('0', 6 - #time[2]) .. time[2]
  if #following > #micros or (#following == #micros and following > micros) then return following end
  return micros
end

-- The best lane that this engine may serve: pin, lane, score; nil when nothing waits.
local function bestLane()
  local best = nil
  for _, pin in ipairs(pins) do
    local head = redis.call('ZRANGE', lanesKey(pin), 0, 0, 'WITHSCORES')
    if head[1] then
      local score = tonumber(head[2])
      if not best or score < best.score then best = { pin = pin, name = head[1], score = score } end
    end
  end
  return best
end

local function take(id, job)
  local epoch = nextEpoch(job.epoch)
  local claimed = { id, epoch }
  local content = redis.call('HMGET', jobKey(id), 'p', 'spec')
  claimed[3] = content[1] or ''
  claimed[4] = content[2] or ''
  local lengths = {}
  for choice = 0, tonumber(job.n) - 1 do
    local journal = redis.call('LRANGE', journalKey(id, choice), 0, -1)
    claimed[#claimed + 1] = journal
    lengths[#lengths + 1] = #journal
  end
  redis.call('HSET', jobKey(id), 'st', 'r', 'own', engine, 'ep', epoch, 'resume', ARGV[3],
    'base', '[' .. table.concat(lengths, ',') .. ']')
  redis.call('ZREM', waiting, id)
  redis.call('ZREM', deadlines, id)
  redis.call('ZADD', heldKey(engine), digits(now), id)
  redis.call('HINCRBY', pool, 'tokens', '-' .. job.cost)
  redis.call('HINCRBY', pool, 'running', 1)
  return claimed
end

local claims = {}
-- An engine that holds nothing gets one job whatever its cost, or the job would block the queue for ever.
local idle = redis.call('ZCARD', heldKey(engine)) == 0
local best = bestLane()
while best do
  local stream = laneKey(best.name)
  local peeked = redis.call('XRANGE', stream, digits(arrivalOf(best.score)), '+', 'COUNT', 1)[1]
  local fields = peeked[2]
  local id, cost, n = fields[2], tonumber(fields[4]), tonumber(fields[6])
  if not (idle and #claims == 0) and (cost > tokens or n > sequences) then break end

  -- Delivers the entry just peeked at: everything before it was delivered or deleted.
  redis.call('XREADGROUP', 'GROUP', 'engines', 'engine', 'COUNT', 1, 'STREAMS', stream, '>')
  placeLane(best.pin, best.name, best.score, '(' .. peeked[1])
  local job = loadJob(id)
  if not job then -- its hash was deleted by hand
    redis.call('XACK', stream, 'engines', peeked[1])
    redis.call('XDEL', stream, peeked[1])
  elseif job.deadline > 0 and job.deadline <= now and not hasStarted(id, job) then
    failJob(id, job, '{"code":"capacity_timeout","message":"no engine was free before the deadline of the request"}')
  else
    claims[#claims + 1] = take(id, job)
    tokens = tokens - cost
    sequences = sequences - n
  end
  best = bestLane()
end
return claims
