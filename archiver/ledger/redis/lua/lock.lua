-- Returns 1 when `name` is held with this token, also by an earlier sending of the same call.
local key, token, lifetime = prefix .. 'lock:' .. take(), take(), take()
if redis.call('SET', key, token, 'NX', 'PX', lifetime) then return 1 end
if redis.call('GET', key) == token then return 1 end
if redis.call('PTTL', key) <= lifetime + CLOCK_STEP / 1000 then return 0 end
redis.call('SET', key, token, 'PX', lifetime) -- the server's clock was set back
return 1
