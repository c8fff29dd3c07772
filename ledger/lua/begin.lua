-- What an attempt begins with: the fence or nothing, whether work of an earlier attempt is kept, the row, and the facts
-- whose names begin with `start`.
local id, holder, duration, call, start = take(), take(), tonumber(take()), take(), take()
local fence = lease(id, holder, duration, call)
local has_work = redis.call('EXISTS', prefix .. 'work:' .. id)
return {fence, has_work, whole_row(id), living_fields(prefix .. 'facts', nil, start)}
