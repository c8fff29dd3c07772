-- Returns 1 when `name` is held with this token, also by an earlier sending of the same call.
local key, token, lifetime = prefix .. 'lock:' .. take(), take(), take()
if redis.call('SET', key, token, 'NX', 'PX', lifetime) then return 1 end
return redis.call('GET', key) == token and 1 or 0
