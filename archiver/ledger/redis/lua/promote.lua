-- Moves waits that are over and expired leases, and those that a clock set back would prolong, to `ready`, ordered by deadline; at most `limit` of each, so that no
-- call blocks the server for long. Returns 1 when there may be more. Each wait is promoted once, so the cost is
-- amortised.
local due, limit = whole(now + math.max(tonumber(take()), 0)), tonumber(take())

local function promote(state, from, to)
  local ids = redis.call('ZRANGEBYSCORE', time_key(state), from, to, 'WITHSCORES', 'LIMIT', 0, limit)
  for i = 1, #ids, 2 do
    local id, at = ids[i], ids[i + 1]
    local expires = redis.call('ZSCORE', state_key(state), id)
    redis.call('ZREM', time_key(state), id)
    if expires then
      redis.call('ZADD', prefix .. 'ready', expires, id)
      if state == 'waiting' then redis.call('ZADD', time_key('ready'), at, id) end
    end
  end
  return #ids / 2 >= limit
end

local function beyond(longest)
  return '(' .. whole(now + longest + CLOCK_STEP)
end

local more = {
  promote('waiting', '-inf', due), promote('waiting', beyond(MAX_WAIT), '+inf'),
  promote('running', '-inf', whole(now)), promote('running', beyond(MAX_LEASE), '+inf'),
}
return (more[1] or more[2] or more[3] or more[4]) and 1 or 0
