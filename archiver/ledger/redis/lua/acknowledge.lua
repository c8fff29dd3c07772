-- Acknowledges an end state. Returns the row, or nothing for an unknown asset. `words`: who and why, as JSON.
local id, words, state_list = take(), take(), {}
for state in take do
  state_list[state] = true
end
local found = redis.call('HMGET', asset_key(id), 'st', 'ch')
if not found[1] then return false end
if state_list[found[1]] then
  set(id, {ak = found[2] .. '|' .. whole(now) .. '|' .. words})
  redis.call('SADD', prefix .. 'acknowledged', id)
end
return whole_row(id)
