-- Records an end state known from manifests or a person. Returns 1 when the state changed.
local seen, done = take_seen(), take_settlement()
local row = read(seen.id)
if row and (row.st == 'running' or REMOVED[row.st] or leased(row)) then return 0 end
if row and row.st == done.state then
  set(seen.id, {re = done.re})
  if done.cp then set_copies(seen.id, done.cp) end
  return 0
end
if not row then
  enter(seen, done.state)
else
  move(seen.id, row.st, done.state, row.ex)
  set_known(seen.id, seen)
end
set(seen.id, {mi = '', fp = ''})
set_result(seen.id, done)
if done.cp then set_copies(seen.id, done.cp) end
-- An attempt was begun: its outcome was lost, and is found in the manifest.
if done.state == 'damaged' or (row and (not OPEN[row.st] or row.at > 0)) then announce(seen.id, done.state) end
return 1
