-- Returns 0, and sets nothing, when the lock is not held with this token.
local lock, token, key, name, value = prefix .. 'lock:' .. take(), take(), prefix .. 'facts', take(), take()
if redis.call('GET', lock) ~= token then return 0 end
redis.call('HSET', key, name, '|' .. value)
return 1
