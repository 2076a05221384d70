#!lua flags=allow-oom
--[[
  A draining engine gives jobs back, ahead of new ones and without a strike.

  KEYS[1]  {q:<model>}
  ARGV[1]  engine     then per job: id, epoch

  Output: number of jobs that were its own and now wait again
]]
-- @include keys
-- @include time
-- @include lane
-- @include readers
-- @include job

local released = 0
for i = 2, #ARGV, 2 do
  local job = loadJob(ARGV[i])
  if job and job.state == 'r' and job.owner == ARGV[1] and job.epoch == ARGV[i + 1] then
    requeueJob(ARGV[i], job, job.attempts)
    released = released + 1
  end
end
if released > 0 then redis.call('PUBLISH', bell, '') end
return released
