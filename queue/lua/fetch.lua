#!lua flags=no-writes
--[[
  What follows the tokens a gateway has delivered, for many streams at once. Where the epoch is not the one the gateway
  knows and began before its offset, the text may have forked: then the whole journal is given, to compare.

  KEYS[1]  {q:<model>}
  ARGV     per stream: id, known epoch, n, <n offsets>

  Output: per stream nil if the job is unknown, else {epoch, ending or '', {from, elements...} per choice}
]]
-- @include keys

local replies = {}
local at = 1
while at <= #ARGV do
  local id, known, n = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local f = redis.call('HMGET', jobKey(id), 'ep', 'end')
  if f[1] then
    local reply = { f[1], f[2] or '' }
    for choice = 0, n - 1 do
      local from = tonumber(ARGV[at + 3 + choice])
      if f[1] ~= known then from = 0 end
      local part = redis.call('LRANGE', journalKey(id, choice), from, -1)
      table.insert(part, 1, from)
      reply[#reply + 1] = part
    end
    replies[#replies + 1] = reply
  else
    replies[#replies + 1] = false
  end
  at = at + 3 + n
end
return replies
