-- `seen`, then the size of each state that is named.
local counts = {redis.call('GET', prefix .. 'seen') or 0}
for state in take do
  counts[#counts + 1] = redis.call('ZCARD', state_key(state))
end
return counts
