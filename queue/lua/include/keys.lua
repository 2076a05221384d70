-- The names of keys.ts, built on KEYS[1] = {q:<model>}, which is the pool's own hash.
local pool = KEYS[1]
local waiting = pool .. ':waiting'
local deadlines = pool .. ':deadlines'
local engines = pool .. ':engines'
local gateways = pool .. ':gateways'
local dead = pool .. ':dead'
local bell = pool .. ':bell'
local function jobKey(id) return pool .. ':r:' .. id end
local function journalKey(id, choice) return pool .. ':t:' .. id .. ':' .. choice end
local function laneKey(lane) return pool .. ':s:' .. lane end
local function lanesKey(pin) return pool .. ':lanes:' .. pin end
local function heldKey(engine) return pool .. ':held:' .. engine end
local function engineKey(engine) return pool .. ':e:' .. engine end
local function gatewayChannel(gateway) return 'pagestream:gateway:' .. gateway end
local function engineChannel(engine) return 'pagestream:engine:' .. engine end
