-- Returns the new fencing token, or nothing when the lease is lost. `call`: see `lease` in _shared.lua.
local id, fence, holder, above, call = take(), take(), take(), tonumber(take()), take()
local row = read(id)
if row and row.ca == call then return row.fe end
if not owns(row, fence) then return false end

local higher = whole(math.max(tonumber(fence), above + 1))
if row then set(id, {fe = higher, ho = holder, ca = call, at = row.at + (row.fe and 0 or 1)}) end
return higher
