#!lua flags=no-writes
--[[
  What follows the tokens a gateway has delivered, for many streams at once and so many elements each. Where the epoch is
  not the one the gateway knows, the text may have forked: then everything up to there is given too, to compare.

  KEYS[1]  {q:<model>}
  ARGV[1]  most elements per choice     then per stream: id, known epoch, n, <n offsets>

  Output: per stream nil if the job is unknown, else {epoch, ending or '', pin or '', {from, length, elements...} per choice}
]]
-- @include keys

local most = tonumber(ARGV[1])
local replies = {}
local at = 2
while at <= #ARGV do
  local id, known, n = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local f = redis.call('HMGET', jobKey(id), 'ep', 'end', 'resume')
  if f[1] then
    local reply = { f[1], f[2] or '', f[3] or '' }
    for choice = 0, n - 1 do
      local from = tonumber(ARGV[at + 3 + choice])
      local last = from + most - 1
      if f[1] ~= known then from = 0 end
      local part = redis.call('LRANGE', journalKey(id, choice), from, last)
      table.insert(part, 1, from)
      table.insert(part, 2, redis.call('LLEN', journalKey(id, choice)))
      reply[#reply + 1] = part
    end
    replies[#replies + 1] = reply
  else
    replies[#replies + 1] = false
  end
  at = at + 3 + n
end
return replies
