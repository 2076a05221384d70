#!lua
--[[
  Admits a job to its pool's queue. Not allowed under OOM: then Redis refuses it before it has written anything. For a
  job that is there already its gateway becomes a reader of it.

  KEYS[1]  {q:<model>}
  ARGV[1]  most waiting jobs    ARGV[2]  most waiting tokens    ARGV[3..] the job:
    id, class (0 first), revision, tenant (both escaped), gateway, cost in KV tokens, n, adapter, block hashes separated
    by commas, ms it may wait or 0, ms the ended job stays readable, ms it goes on without a reader, view,
    prompt as u32le, spec as JSON

  Output:
     {2, generation of the reader}  it was there
     {1, 1}  admitted
     {0, 0}  the queue is full; nothing was written
]]
-- @include keys
-- @include time
-- @include lane
-- @include readers
-- @include create

local id, gateway, cost = ARGV[3], ARGV[7], ARGV[8]
local names = redis.call('HGET', jobKey(id), 'gw')
if names then return { 2, addReader(id, gateway, names) } end

local queued = redis.call('ZCARD', waiting)
local tokens = tonumber(redis.call('HGET', pool, 'tokens') or '0')
if queued >= tonumber(ARGV[1]) then return { 0, 0 } end
-- An empty queue takes any job, or one larger than the bound could never be served.
if queued > 0 and tokens + tonumber(cost) > tonumber(ARGV[2]) then return { 0, 0 } end
createJob(2)
redis.call('PUBLISH', bell, '')
return { 1, 1 }
