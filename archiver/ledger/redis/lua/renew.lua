-- Returns 1, or 0 when the lease is lost.
local id, fence, holder, duration = take(), take(), take(), tonumber(take())
local row = read(id)
if not owns(row, fence) then return 0 end
if not row then return 1 end

local ends = whole(now + duration)
if not row.fe then set(id, {fe = fence, ho = holder, at = row.at + 1}) end
if row.lu > 0 then
  set(id, {lu = ends})
elseif row.st == 'running' then
  redis.call('ZADD', time_key('running'), ends, id)
  redis.call('ZREM', prefix .. 'ready', id) -- it had expired, and nobody else took it
else
  move(id, row.st, 'running', row.ex, ends)
end
return 1
