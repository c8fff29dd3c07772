-- Returns up to `limit` rows of one state, by deadline, after the asset `after` (none: from the first), whose
-- deadline was `expires` when it was read. If it is gone, it is put back for a moment to find its rank.
local state, limit, after, expires = take(), tonumber(take()), take(), take()
local key, first = state_key(state), 0
if after ~= '' then
  local is = tonumber(redis.call('ZSCORE', key, after) or nil)
  if is == tonumber(expires) then
    first = redis.call('ZRANK', key, after) + 1
  else
    redis.call('ZREM', key, after) -- before the ZADD: a server that is full then lets it through
    redis.call('ZADD', key, expires, after)
    first = redis.call('ZRANK', key, after)
    redis.call('ZREM', key, after)
    if is then redis.call('ZADD', key, is, after) end
    if is and is < tonumber(expires) then first = first + 1 end
  end
end

local rows, ids = {}, nil
repeat
  ids = redis.call('ZRANGE', key, first, first + limit - 1)
  for _, id in ipairs(ids) do
    local row = whole_row(id)
    if row[2] then
      rows[#rows + 1] = row
    else -- only a server that evicts keys loses a row alone
      redis.call('ZREM', key, id)
    end
  end
until rows[1] or not ids[1]
return rows
