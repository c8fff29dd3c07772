-- Enters one page of a sweep: a count, then that many assets. Returns how many were new.
local MAX_SIZES = 16 -- ledger.models.MAX_SIZES

-- Whether an archived asset has a new size. Its sizes so far are in `zs`, each between spaces.
local function is_new_size(id, before, size)
  if before == '' then return false end
  local known = redis.call('HGET', asset_key(id), 'zs') or (' ' .. before .. ' ')
  local _, number = string.gsub(known, '%d+', '')
  if number >= MAX_SIZES or string.find(known, ' ' .. size .. ' ', 1, true) then return false end
  set(id, {zs = known .. size .. ' '})
  return true
end

local new = 0
for _ = 1, tonumber(take()) do
  local seen = take_seen()
  local id, verdict, row = seen.id, seen.verdict, read(seen.id)
  if not row then
    enter(seen, verdict)
    new = new + 1
  else
    local resized = false
    if seen.si ~= '' and seen.si ~= row.si and not leased(row) then
      set(id, {si = seen.si})
      resized = row.st == 'archived' and is_new_size(id, row.si, seen.si)
    end
    if seen.ex ~= row.ex then
      row.ex = seen.ex
      set(id, {ex = seen.ex})
      redis.call('ZADD', state_key(row.st), seen.ex, id)
      redis.call('ZADD', prefix .. 'ready', 'XX', seen.ex, id)
    end
    if leased(row) then
      -- the next sweep sees it again
    elseif verdict == 'discovered' then
      if JUDGED[row.st] then reopen(id, row) elseif resized then reopen(id, row, true) end
    elseif JUDGED[row.st] or (OPEN[row.st] and row.st ~= 'running' and verdict ~= 'source_failed') then
      set(id, {re = seen.re})
      if row.st ~= verdict then move(id, row.st, verdict, row.ex) end
    end
  end
end
return new
