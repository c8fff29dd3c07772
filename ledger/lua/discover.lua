-- One page of a sweep: count, then that many assets. Returns how many were new.
local new = 0
for _ = 1, tonumber(take()) do
  local seen = take_seen()
  local id, verdict, row = seen.id, seen.verdict, read(seen.id)
  if not row then
    enter(seen, verdict)
    new = new + 1
  else
    if seen.si ~= '' and seen.si ~= row.si then set(id, {si = seen.si}) end
    if seen.ex ~= row.ex then
      row.ex = seen.ex
      set(id, {ex = seen.ex})
      redis.call('ZADD', state_key(row.st), seen.ex, id)
      redis.call('ZADD', prefix .. 'ready', 'XX', seen.ex, id)
    end
    if verdict == 'discovered' then
      if JUDGED[row.st] then reopen(id, row) end
    elseif JUDGED[row.st] or (OPEN[row.st] and row.st ~= 'running') then
      set(id, {re = seen.re})
      if row.st ~= verdict then move(id, row.st, verdict, row.ex) end
    end
  end
end
return new
