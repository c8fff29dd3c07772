-- Sets a field of a hash that expires after `lifetime` (microseconds; empty: never), and with `whole_hash` the hash
-- too.
local key, name, value, lifetime, whole_hash = prefix .. take(), take(), take(), take(), take()
local ends = lifetime ~= '' and whole(now + lifetime) or ''
redis.call('HSET', key, name, ends .. '|' .. value)
if whole_hash == '1' then redis.call('PEXPIRE', key, whole(lifetime / 1000)) end
return 1
