#!lua flags=allow-oom
--[[
  Ends a job that nobody waits for. Its engine is told at once; should it not hear, its appends are FENCED and its next
  beat tells it.

  KEYS[1]  {q:<model>}
  ARGV[1]  job id

  Output: 1 cancelled, 0 unknown or already ended
]]
-- @include keys
-- @include time
-- @include lane
-- @include job

local id = ARGV[1]
local job = loadJob(id)
if not job or (job.state ~= 'q' and job.state ~= 'r') then return 0 end
local running = job.state == 'r'
endJob(id, job, 'c', '{"code":"request_failed","message":"the request was cancelled"}')
if running then redis.call('PUBLISH', engineChannel(job.owner), '{"cancel":"' .. id .. '"}') end
return 1
