-- `seen`, then the size of each state that is named, then a state for each asset that was acknowledged in it. Each word
-- is compared with the row: a worker of an older version changes states and leaves the word where it is.
local counts = {redis.call('GET', prefix .. 'seen') or 0}
for state in take do
  counts[#counts + 1] = redis.call('ZCARD', state_key(state))
end
for _, id in ipairs(redis.call('SMEMBERS', prefix .. 'acknowledged')) do
  local found = redis.call('HMGET', asset_key(id), 'st', 'ch', 'ak')
  if found[1] and found[3] and string.match(found[3], '^%d+') == found[2] then
    counts[#counts + 1] = found[1]
  end
end
return counts
