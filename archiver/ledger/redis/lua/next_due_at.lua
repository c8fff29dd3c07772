local earliest
for _, state in ipairs({'waiting', 'ready'}) do
  local first = redis.call('ZRANGE', time_key(state), 0, 0, 'WITHSCORES')[2]
  if first and (not earliest or tonumber(first) < tonumber(earliest)) then earliest = first end
end
return earliest or false
