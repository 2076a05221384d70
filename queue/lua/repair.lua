#!lua flags=allow-oom
--[[
  Puts back what Redis has lost of a job and a gateway still holds: the journal up to what was delivered, and the job
  itself where that is gone too (or was ended otherwise than was delivered). It waits again, under a new epoch, so
  whoever ran it is fenced. Only the newest reader may repair, and only the state it has seen: an old one, cut off for a
  while, must not fight it. Allowed under OOM: running streams must end.

  KEYS[1]  {q:<model>}
  ARGV[1]  job id     ARGV[2]  gateway     ARGV[3]  generation of the reader     ARGV[4]  epoch it has seen, '' for no job
  ARGV[5]  latest epoch it knows     ARGV[6]  pin that made its tokens, or ''    ARGV[7]  n
  then per choice: count, <count elements>; then the job as in enqueue, or nothing if the reader does not have it

  Output: the new epoch; 0 the state is another by now; -1 it cannot be repaired; -2 there is a newer reader
]]
-- @include keys
-- @include time
-- @include lane
-- @include readers
-- @include job
-- @include create
-- @include epoch

local id, seen, pin, n = ARGV[1], ARGV[4], ARGV[6], tonumber(ARGV[7])
local choices, at, delivered = {}, 8, 0
for choice = 0, n - 1 do
  local count = tonumber(ARGV[at])
  choices[#choices + 1] = { from = at + 1, to = at + count }
  delivered = delivered + count
  at = at + count + 1
end
local hasJob = #ARGV >= at

local job = loadJob(id)
if (job and job.epoch or '') ~= seen then return 0 end
if job and tonumber(ARGV[3]) < tonumber(redis.call('HGET', jobKey(id), 'gen')) then return -2 end
if job and job.state == 'c' then return -1 end
if job and pin == '' then pin = job.resumePin end
if delivered > 0 and pin == '' then return -1 end
if not job or (job.state ~= 'q' and job.state ~= 'r') then
  if not hasJob then return -1 end
  redis.call('DEL', jobKey(id))
  createJob(at - 1)
  redis.call('HSET', jobKey(id), 'gw', ARGV[2], 'gen', ARGV[3])
  job = loadJob(id)
end

local lengths = {}
for i, choice in ipairs(choices) do
  local key = journalKey(id, i - 1)
  redis.call('DEL', key)
  for e = choice.from, choice.to do redis.call('RPUSH', key, ARGV[e]) end
  lengths[#lengths + 1] = choice.to - choice.from + 1
end
job.resumePin = pin
requeueJob(id, job, job.attempts)
local epoch = nextEpoch(later(job.epoch, ARGV[5]))
redis.call('HSET', jobKey(id), 'ep', epoch, 'resume', pin, 'gen', ARGV[3],
  'base', '[' .. table.concat(lengths, ',') .. ']')
redis.call('PUBLISH', bell, '')
return epoch
