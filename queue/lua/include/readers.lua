-- Who reads a job: gateways, separated by commas, one of them unless a client came back through another. A gateway says
-- that it lives whenever it admits, attaches or reaps; a job that nobody alive has read for its `grace` is an orphan.
-- needs keys.lua, time.lua
local function split(names)
  local parts, from = {}, 1
  while from <= #names do
    local comma = string.find(names, ',', from, true) or #names + 1
    parts[#parts + 1] = string.sub(names, from, comma - 1)
    from = comma + 1
  end
  return parts
end

local function without(names, name)
  local rest = {}
  for _, other in ipairs(split(names)) do
    if other ~= name then rest[#rest + 1] = other end
  end
  return table.concat(rest, ',')
end

local function sawGateway(name) redis.call('ZADD', gateways, digits(now), name) end

-- Returns the reader's generation: only the newest may repair the journal.
local function addReader(id, name, names)
  sawGateway(name)
  local rest = without(names, name)
  if rest ~= '' then name = rest .. ',' .. name end
  redis.call('HSET', jobKey(id), 'gw', name, 'left', '0')
  return redis.call('HINCRBY', jobKey(id), 'gen', 1)
end

-- `left`: when the last reader said goodbye, 0 while there is one.
local function isOrphan(names, left, grace)
  local last = left
  for _, name in ipairs(split(names)) do
    local seen = redis.call('ZSCORE', gateways, name)
    if not seen then -- Redis may have lost it: its time begins now
      sawGateway(name)
      return false
    end
    last = math.max(last, tonumber(seen))
  end
  return last + grace <= now
end
