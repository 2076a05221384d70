#!lua flags=allow-oom
--[[
  A gateway becomes a reader of a job, live or ended, and what it needs to render the answer.

  KEYS[1]  {q:<model>}
  ARGV[1]  job id     ARGV[2]  gateway     ARGV[3]  tenant, escaped

  Output: {view, generation of the reader}, or nil if the tenant has no such job
]]
-- @include keys
-- @include time
-- @include readers

local f = redis.call('HMGET', jobKey(ARGV[1]), 'gw', 'tenant', 'view')
if not f[1] or f[2] ~= ARGV[3] then return false end
return { f[3], addReader(ARGV[1], ARGV[2], f[1]) }
