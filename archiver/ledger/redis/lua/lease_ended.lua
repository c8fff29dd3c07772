-- Leases an asset that is at an end. Returns the fencing token, or nothing. `call`: see `lease` in _shared.lua.
local id, holder, duration, call = take(), take(), tonumber(take()), take()
local row = read(id)
if not row or OPEN[row.st] or REMOVED[row.st] then return false end
if leased(row) then return row.ca == call and row.fe end

local fence = whole(math.max(now, (tonumber(row.fe) or 0) + 1))
set(id, {fe = fence, ho = holder, ca = call, lu = whole(now + duration)})
return fence
