-- Epochs are decimal strings and stay strings: as Lua numbers they would print rounded.
-- needs time.lua
local function plusOne(epoch)
  local last = string.sub(epoch, -1)
  local rest = string.sub(epoch, 1, -2)
  if last ~= '9' then return rest .. (tonumber(last) + 1) end
  if rest == '' then return '10' end
  return plusOne(rest) .. '0'
end

local function later(a, b)
  if #a > #b or (#a == #b and a > b) then return a end
  return b
end

-- max(epoch + 1, microseconds of Redis TIME): grows even if Redis restarts from an older state.
local function nextEpoch(epoch)
  return later(plusOne(epoch), time[1] .. string.rep('0', 6 - #time[2]) .. time[2])
end
