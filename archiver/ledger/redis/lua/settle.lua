-- Returns the row as JSON, or nothing when the lease is lost. `call`: see `lease` in _shared.lua.
local fence, call = take(), take()
local seen, done = take_seen(), take_settlement()
local id = seen.id
local row = read(id)
if row and row.ca == call then return cjson.encode(whole_row(id)) end
if not owns(row, fence) then return false end

if not row then
  enter(seen, 'discovered')
  row = read(id)
end
local attempts = row.at + (row.fe and 0 or 1) - (done.counts and 0 or 1)
local same = done.fp == '' or done.fp == row.fp
local mismatches = done.mismatch and (same and row.mi + 1 or 1) or 0
set(id, {
  fe = fence, ho = '', ca = call, at = math.max(attempts, 0), mi = mismatches, fp = done.mismatch and done.fp or '',
})
if done.gone then
  local since = tonumber(redis.call('HGET', asset_key(id), 'gs'))
  if not since or since > now then set(id, {gs = now}) end
elseif done.counts then
  set(id, {gs = ''})
end
set_result(id, done)
set_known(id, seen)
if done.state == 'archived' and seen.si ~= '' then set(id, {si = seen.si}) end
local wait, left = math.min(math.max(done.delay, 0), MAX_WAIT), tonumber(row.ex) - now
if left > 0 then wait = math.min(wait, left / DEADLINE_DIVISOR) end
move(id, row.st, done.state, row.ex, whole(now + math.floor(wait)))
if done.cp then set_copies(id, done.cp) end
redis.call('HDEL', prefix .. 'progress', id)
add_totals()
announce(id, done.state)
return cjson.encode(whole_row(id))
