-- Writes fields of one hash of an unfinished copy. Returns 0 when the lease is lost.
-- `mode`: 'new' replaces the hash; 'version' replaces it when it is of another version; 'add' needs it to exist.
local id, fence, key, lifetime, mode, version = take(), take(), take(), take(), take(), take()
if not owns(read(id), fence) then return 0 end

key = prefix .. key
if mode == 'add' and redis.call('EXISTS', key) == 0 then return 1 end
if mode == 'new' or (mode == 'version' and redis.call('HGET', key, 'version') ~= version) then
  redis.call('UNLINK', key)
end
if mode == 'version' then redis.call('HSET', key, 'version', version) end
for _ = 1, tonumber(take()) do
  redis.call('HSET', key, take(), take())
end
redis.call('PEXPIRE', key, lifetime)

local work = prefix .. 'work:' .. id
redis.call('SADD', work, key)
redis.call('PEXPIRE', work, lifetime)
return 1
