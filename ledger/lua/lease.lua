-- Returns the fence, or nothing. `call` is this call's own number: a client that sends it again, because the
-- connection broke before the answer, gets the lease that it was given.
local id, holder, duration, call = take(), take(), tonumber(take()), take()
local row = read(id)
if not row or not OPEN[row.st] then return false end
if living(id, row) then return row.ca == call and row.fe end
if row.st == 'waiting' and row.nx > now then return false end

-- By time, so that fences grow also across a flush; and never backwards, should the clock go back.
local fence = whole(math.max(now, (tonumber(row.fe) or 0) + 1))
set(id, {fe = fence, ho = holder, ca = call, at = row.at + 1, de = row.ho and row.de + 1 or row.de})
move(id, row.st, 'running', row.ex, whole(now + duration))
return fence
