#!lua flags=allow-oom
--[[
  Gives waiting jobs to an engine: the only place that chooses. Today's policy: class, then resumed before new, then
  arrival; it stops at the first job that does not fit, so that large jobs are not passed over for ever. A suspect (two
  engines died with it) goes to an engine that holds nothing, first, and nothing else goes to that engine; while
  suspects wait and no engine is idle, one, the ward, is given nothing until it is. What nobody reads ends here. The engine's
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
-- @include readers
-- @include job
-- @include epoch

local engine = ARGV[1]
local lease = redis.call('ZSCORE', engines, engine)
if not lease or tonumber(lease) <= now then return {} end

local tokens, sequences = tonumber(ARGV[4]), tonumber(ARGV[5])
local pins = { ARGV[2], ARGV[3] }
local suspectPins = { ARGV[2] .. ALONE, ARGV[3] .. ALONE }

-- The best lane of these pins: pin, lane, score; nil when nothing waits.
local function bestLane(pins)
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
    'fresh', '1', 'base', '[' .. table.concat(lengths, ',') .. ']')
  redis.call('ZREM', waiting, id)
  redis.call('ZREM', deadlines, id)
  redis.call('ZADD', heldKey(engine), digits(now), id)
  redis.call('HINCRBY', pool, 'tokens', '-' .. job.cost)
  redis.call('HINCRBY', pool, 'running', 1)
  return claimed
end

-- Whether this engine is the one that empties itself for the suspects of a pin: the first that finds them waiting.
local function isWard(pin)
  local ward = redis.call('HGET', pool, 'ward:' .. pin)
  if ward and ward ~= engine then
    local alive = redis.call('ZSCORE', engines, ward)
    if alive and tonumber(alive) > now then return false end
  end
  redis.call('HSET', pool, 'ward:' .. pin, engine)
  return true
end

local function holdsSuspect()
  local first = redis.call('ZRANGE', heldKey(engine), 0, 0)[1]
  return first and tonumber(redis.call('HGET', jobKey(first), 'att') or '0') >= SUSPECT_AT
end

-- The first waiting job of a lane: its stream, entry and what the entry says.
local function peek(best)
  local stream = laneKey(best.name)
  local entry = redis.call('XRANGE', stream, digits(arrivalOf(best.score)), '+', 'COUNT', 1)[1]
  local fields = entry[2]
  return { stream = stream, entry = entry[1], id = fields[2], cost = tonumber(fields[4]), n = tonumber(fields[6]) }
end

-- Delivers the entry just peeked at: everything before it was delivered or deleted. Nil when it is not worth running.
local function deliver(best, head)
  redis.call('XREADGROUP', 'GROUP', 'engines', 'engine', 'COUNT', 1, 'STREAMS', head.stream, '>')
  placeLane(best.pin, best.name, best.score, '(' .. head.entry)
  local id = head.id
  local job = loadJob(id)
  if not job then -- its hash was deleted by hand
    redis.call('XACK', head.stream, 'engines', head.entry)
    redis.call('XDEL', head.stream, head.entry)
  elseif isOrphan(job.gateway, job.left, job.grace) then
    endOrphan(id, job)
  elseif job.deadline > 0 and job.deadline <= now and not hasStarted(id, job) then
    failJob(id, job, '{"code":"capacity_timeout","message":"no engine was free before the deadline of the request"}')
  else
    return take(id, job)
  end
  return nil
end

local idle = redis.call('ZCARD', heldKey(engine)) == 0
if not idle and holdsSuspect() then return {} end
local suspect = bestLane(suspectPins)
while idle and suspect do
  local claimed = deliver(suspect, peek(suspect))
  if claimed then return { claimed } end
  suspect = bestLane(suspectPins)
end
if suspect and isWard(suspect.pin) then return {} end

local claims = {}
local best = bestLane(pins)
while best do
  local head = peek(best)
  -- An engine that holds nothing gets one job whatever its cost, or the job would block the queue for ever.
  if not (idle and #claims == 0) and (head.cost > tokens or head.n > sequences) then break end
  local claimed = deliver(best, head)
  if claimed then
    claims[#claims + 1] = claimed
    tokens = tokens - head.cost
    sequences = sequences - head.n
  end
  best = bestLane(pins)
end
return claims
