-- Leases an asset. Returns the fencing token or nothing, whether an earlier attempt left work, the row, and the facts
-- whose names begin with `start`. As JSON: redis-py needs 0.1 ms for a list of 30 strings.
local id, holder, duration, call, start = take(), take(), tonumber(take()), take(), take()
local fence = lease(id, holder, duration, call)
local has_work = redis.call('EXISTS', prefix .. 'work:' .. id)
return cjson.encode({fence, has_work, whole_row(id), living_fields(prefix .. 'facts', nil, start)})
