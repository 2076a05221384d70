#!lua flags=allow-oom
--[[
  Moves the work of engines whose lease ran out back to the queue, with a strike; after four strikes a job is taken for
  the cause of the deaths and fails. Fails waiting jobs past their deadline, which no claim comes by when no engine runs.

  KEYS[1]  {q:<model>}

  Output: number of jobs moved or failed
]]
-- @include keys
-- @include time
-- @include lane
-- @include job

local MOST_STRIKES = 4
-- Deadlines handled in one go; the next call takes the rest.
local BATCH = 100

local touched = 0
for _, engine in ipairs(redis.call('ZRANGEBYSCORE', engines, '-inf', digits(now))) do
  for _, id in ipairs(redis.call('ZRANGE', heldKey(engine), 0, -1)) do
    local job = loadJob(id)
    if job then
      local attempts = job.attempts + 1
      if attempts >= MOST_STRIKES then
        failJob(id, job, '{"code":"request_failed","message":"the engines running this request stopped ' .. attempts .. ' times"}')
      else
        requeueJob(id, job, attempts)
      end
      touched = touched + 1
    end
  end
  redis.call('DEL', heldKey(engine))
  redis.call('ZREM', engines, engine)
end
if touched > 0 then redis.call('PUBLISH', bell, '') end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', digits(now), 'LIMIT', 0, BATCH)) do
  local job = loadJob(id)
  redis.call('ZREM', deadlines, id)
  if job then
    failJob(id, job, '{"code":"capacity_timeout","message":"no engine was free before the deadline of the request"}')
    touched = touched + 1
  end
end
return touched
