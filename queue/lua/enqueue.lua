#!lua
--[[
  Admits a job to its pool's queue. Not allowed under OOM: then Redis refuses it before it has written anything.

  KEYS[1]  {q:<model>}
  ARGV[1]  job id             ARGV[2]  class, 0 first      ARGV[3]  revision, escaped    ARGV[4]  tenant, escaped
  ARGV[5]  gateway            ARGV[6]  cost in KV tokens   ARGV[7]  n, choices           ARGV[8]  adapter
  ARGV[9]  block hashes, comma-separated                   ARGV[10] ms it may wait, 0 for ever
  ARGV[11] ms the ended job stays readable                 ARGV[12] most waiting jobs    ARGV[13] most waiting tokens
  ARGV[14] prompt, u32le      ARGV[15] spec, JSON

  Output:
     1  admitted, now or by an earlier try
     0  the queue is full; nothing was written
]]
-- @include keys
-- @include time
-- @include lane

local id, cost = ARGV[1], ARGV[6]
if redis.call('EXISTS', jobKey(id)) == 1 then return 1 end

local queued = redis.call('ZCARD', waiting)
local tokens = tonumber(redis.call('HGET', pool, 'tokens') or '0')
if queued >= tonumber(ARGV[12]) then return 0 end
-- An empty queue takes any job, or one larger than the bound could never be served.
if queued > 0 and tokens + tonumber(cost) > tonumber(ARGV[13]) then return 0 end

local job = { class = ARGV[2], pin = ARGV[3], cost = cost, n = ARGV[7], adapter = ARGV[8], prefixes = ARGV[9] }
job.lane = job.class .. ':' .. job.pin .. ':t:' .. ARGV[4]
local entry = enterLane(id, job, false)
local deadline = '0'
if tonumber(ARGV[10]) > 0 then deadline = digits(now + tonumber(ARGV[10])) end
redis.call('HSET', jobKey(id), 'st', 'q', 'own', '', 'ep', '0', 'base', '[]', 'gw', ARGV[5], 'class', job.class,
  'pin', job.pin, 'lane', job.lane, 'entry', entry, 'cost', cost, 'n', job.n, 'adapter', job.adapter,
  'prefixes', job.prefixes, 'att', '0', 'rev', job.pin, 'resume', '', 'ttl', ARGV[11], 'at', digits(now), 'dl', deadline,
  'p', ARGV[14], 'spec', ARGV[15])
redis.call('ZADD', waiting, digits(now), id)
if deadline ~= '0' then redis.call('ZADD', deadlines, deadline, id) end
redis.call('HINCRBY', pool, 'tokens', cost)
redis.call('HSET', pool, 'use', digits(now))
redis.call('PUBLISH', bell, '')
return 1
