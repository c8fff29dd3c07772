-- Returns `seen` with the size of each named state, a state for each asset acknowledged in it, how many assets have each
-- 6 letters of `cp`, and the names of destinations by the first 5 of those. The acknowledgement
-- must match the row: a worker of an older version changes the state and leaves it.
local counts = {redis.call('GET', prefix .. 'seen') or 0}
for state in take do
  counts[#counts + 1] = redis.call('ZCARD', state_key(state))
end
local acknowledged = {}
for _, id in ipairs(redis.call('SMEMBERS', prefix .. 'acknowledged')) do
  local found = redis.call('HMGET', asset_key(id), 'st', 'ch', 'ak')
  if found[1] and found[3] and string.match(found[3], '^%d+') == found[2] then
    acknowledged[#acknowledged + 1] = found[1]
  end
end
return {
  counts, acknowledged, redis.call('HGETALL', prefix .. 'copies'), redis.call('HGETALL', prefix .. 'destinations'),
}
