-- The living fields of such a hash, as name, value, ...; all of them, or the one that is named. What has ended is
-- removed on the way.
local key, only = prefix .. take(), take()
local found = only and {only, redis.call('HGET', key, only)} or redis.call('HGETALL', key)
local living_fields = {}
for i = 1, #found, 2 do
  local name, stored = found[i], found[i + 1]
  if stored then
    local ends, value = string.match(stored, '^(%d*)|(.*)$')
    if ends ~= '' and tonumber(ends) <= now then
      redis.call('HDEL', key, name)
    else
      living_fields[#living_fields + 1] = name
      living_fields[#living_fields + 1] = value
    end
  end
end
return living_fields
