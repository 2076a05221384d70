#!lua flags=allow-oom
--[[
  Writes one engine step: for each job the new elements into the journals, one message per gateway composed of the same
  elements, and the end of jobs that ended. An entry is judged by (engine, epoch, from): what is already there is
  dropped, so a repeated append changes nothing. Allowed under OOM: running streams must end.

  KEYS[1]  {q:<model>}
  ARGV[1]  engine
  then per job: id, epoch, index in ARGV of the next job, state after (d, f or empty), ending (JSON or empty),
    and per choice: choice, from, count, <count elements>

  Output: per job
     1      written, now or before
     0      FENCED: the job is not this engine's under this epoch
     {len}  GAP: journal lengths of the given choices; some `from` is beyond, nothing was written
]]
-- @include keys
-- @include time
-- @include lane
-- @include readers
-- @include job

local engine = ARGV[1]
local verdicts = {}
local addressees, messages = {}, {}

-- The lengths of the journals of the entry's choices, and whether a token would be missing between.
local function measure(id, at, stop)
  local lengths, gap = {}, false
  while at < stop do
    local length = redis.call('LLEN', journalKey(id, ARGV[at]))
    lengths[#lengths + 1] = length
    if tonumber(ARGV[at + 1]) > length then gap = true end
    at = at + 3 + tonumber(ARGV[at + 2])
  end
  lengths.gap = gap
  return lengths
end

-- Returns the message's parts: [choice,from,[elements]] of what was new.
local function write(id, at, stop, lengths)
  local parts, k = {}, 1
  while at < stop do
    local key, from, count = journalKey(id, ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local fresh = {}
    for e = at + 3 + lengths[k] - from, at + 2 + count do
      redis.call('RPUSH', key, ARGV[e])
      fresh[#fresh + 1] = ARGV[e]
    end
    if #fresh > 0 then
      parts[#parts + 1] = '[' .. ARGV[at] .. ',' .. lengths[k] .. ',[' .. table.concat(fresh, ',') .. ']]'
    end
    at = at + 3 + count
    k = k + 1
  end
  return table.concat(parts, ',')
end

local function appendEntry(at)
  local id, epoch, stop, state, ending = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
  local f = redis.call('HMGET', jobKey(id), 'st', 'own', 'ep', 'base', 'gw', 'fresh', 'resume')
  if f[2] ~= engine or f[3] ~= epoch then return 0 end
  if f[1] == 'd' or f[1] == 'f' then return 1 end
  if f[1] ~= 'r' then return 0 end

  local lengths = measure(id, at + 5, stop)
  if lengths.gap then return lengths end
  local parts = write(id, at + 5, stop, lengths)
  if state ~= '' then
    endJob(id, loadJob(id), state, ending)
  elseif parts == '' then
    return 1
  else
    ending = 'null'
  end
  local text = '["' .. id .. '","' .. epoch .. '",' .. f[4] .. ',[' .. parts .. '],' .. ending
  if f[6] == '1' then -- the first of this epoch tells the pin, should Redis lose the job
    redis.call('HDEL', jobKey(id), 'fresh')
    text = text .. ',"' .. f[7] .. '"'
  end
  for _, gateway in ipairs(split(f[5])) do
    if not messages[gateway] then
      messages[gateway] = {}
      addressees[#addressees + 1] = gateway
    end
    local message = messages[gateway]
    message[#message + 1] = text .. ']'
  end
  return 1
end

local at = 2
while at <= #ARGV do
  verdicts[#verdicts + 1] = appendEntry(at)
  at = tonumber(ARGV[at + 2])
end
for _, gateway in ipairs(addressees) do
  redis.call('PUBLISH', gatewayChannel(gateway), '[' .. table.concat(messages[gateway], ',') .. ']')
end
return verdicts
