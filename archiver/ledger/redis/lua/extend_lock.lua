local key, token, lifetime = prefix .. 'lock:' .. take(), take(), take()
if redis.call('GET', key) ~= token then return 0 end
return redis.call('PEXPIRE', key, lifetime)
