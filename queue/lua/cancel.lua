#!lua flags=allow-oom
--[[
  Ends a job that nobody waits for. Its engine is told at once; should it not hear, its appends are FENCED and its next
  beat tells it. Where a gateway is named only that reader leaves: the job ends with its last one, or, if it is to be
  kept, when it has been without one for its grace.

  KEYS[1]  {q:<model>}
  ARGV[1]  job id     ARGV[2]  gateway that leaves, or empty: the job ends     ARGV[3]  1 to keep it for its grace

  Output: 1 cancelled, 0 not: unknown, ended, read by others or kept
]]
-- @include keys
-- @include time
-- @include lane
-- @include readers
-- @include job

local id, gateway = ARGV[1], ARGV[2]
local job = loadJob(id)
if not job or (job.state ~= 'q' and job.state ~= 'r') then return 0 end
if gateway ~= '' then
  local rest = without(job.gateway, gateway)
  if rest ~= '' or ARGV[3] == '1' then
    redis.call('HSET', jobKey(id), 'gw', rest)
    if rest == '' then redis.call('HSET', jobKey(id), 'left', digits(now)) end
    return 0
  end
end
local running = job.state == 'r'
endJob(id, job, 'c', '{"code":"request_failed","message":"the request was cancelled"}')
if running then redis.call('PUBLISH', engineChannel(job.owner), '{"cancel":"' .. id .. '"}') end
return 1
