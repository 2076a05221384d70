-- Redis' own clock is the only one that leases and deadlines are measured by.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- Large numbers become text here only: tostring() keeps 14 digits.
local function digits(number) return string.format('%.0f', number) end
