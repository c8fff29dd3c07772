-- Returns of how many of these assets an event is kept.
local kept = 0
for id in take do
  local row = read(id)
  if row and EVENTS[row.st] and keep_event(id) then kept = kept + 1 end
end
return kept
