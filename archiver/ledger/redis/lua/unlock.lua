local key, token = prefix .. 'lock:' .. take(), take()
if redis.call('GET', key) ~= token then return 0 end
return redis.call('DEL', key)
