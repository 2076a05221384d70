-- A new job, from the arguments that enqueue.ts composes (jobArguments), of which the first is ARGV[at + 1].
-- needs keys.lua, time.lua, lane.lua, readers.lua
local function createJob(at)
  local id, gateway, cost = ARGV[at + 1], ARGV[at + 5], ARGV[at + 6]
  local job = { class = ARGV[at + 2], pin = ARGV[at + 3], cost = cost, n = ARGV[at + 7], adapter = ARGV[at + 8],
    prefixes = ARGV[at + 9] }
  job.lane = job.class .. ':' .. job.pin .. ':t:' .. ARGV[at + 4]
  local entry = enterLane(id, job, false)
  local deadline = '0'
  if tonumber(ARGV[at + 10]) > 0 then deadline = digits(now + tonumber(ARGV[at + 10])) end
  redis.call('HSET', jobKey(id), 'st', 'q', 'own', '', 'ep', '0', 'base', '[]', 'gw', gateway, 'class', job.class,
    'pin', job.pin, 'lane', job.lane, 'entry', entry, 'cost', cost, 'n', job.n, 'adapter', job.adapter,
    'prefixes', job.prefixes, 'att', '0', 'rev', job.pin, 'resume', '', 'at', digits(now), 'tenant', ARGV[at + 4],
    'gen', '1', 'left', '0', 'dl', deadline, 'ttl', ARGV[at + 11], 'grace', ARGV[at + 12], 'view', ARGV[at + 13],
    'p', ARGV[at + 14], 'spec', ARGV[at + 15])
  redis.call('ZADD', waiting, digits(now), id)
  if deadline ~= '0' then redis.call('ZADD', deadlines, deadline, id) end
  redis.call('HINCRBY', pool, 'tokens', cost)
  redis.call('HSET', pool, 'use', digits(now))
  sawGateway(gateway)
end
