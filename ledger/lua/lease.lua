-- Returns the fence, or nothing. `call` is this call's own number: a client that sends it again, because the
-- connection broke before the answer, gets the lease that it was given.
local id, holder, duration, call = take(), take(), tonumber(take()), take()
local row = read(id)
if not row or not OPEN[row.st] then return false end
if living(id, row) then return row.ca == call and row.fe end
if row.st == 'waiting' and row.nx > now then return false end

-- How far the copy has come: an object stands above all parts, for the parts of one that is whole are forgotten.
local function stored()
  local amount = 0
  for _, key in ipairs(redis.call('SMEMBERS', prefix .. 'work:' .. id)) do
    local is_upload = string.sub(key, #prefix + 1, #prefix + 7) == 'upload:'
    -- each has one field that names what it is of
    amount = amount + math.max(0, redis.call('HLEN', key) - 1) * (is_upload and 1 or 10000000)
  end
  return amount
end

if row.ho then -- nobody settled the lease before
  local amount = stored()
  set(id, amount > row.mo and {mo = amount} or {de = row.de + 1})
end

-- By time, so that fences grow also across a flush; and never backwards, should the clock go back.
local fence = whole(math.max(now, (tonumber(row.fe) or 0) + 1))
set(id, {fe = fence, ho = holder, ca = call, at = row.at + 1})
move(id, row.st, 'running', row.ex, whole(now + duration))
return fence
