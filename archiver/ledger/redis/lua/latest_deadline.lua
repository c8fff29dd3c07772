-- The latest deadline of the assets in the named states.
local latest
for state in take do
  local last = redis.call('ZREVRANGE', state_key(state), 0, 0, 'WITHSCORES')[2]
  if last and (not latest or tonumber(last) > tonumber(latest)) then latest = last end
end
return latest or false
