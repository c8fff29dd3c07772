-- Moves an asset to a state of REMOVED, whoever has it. Returns the row.
local seen, done = take_seen(), take_settlement()
local row = read(seen.id)
if row and row.st == done.state then
  set(seen.id, {re = done.re})
  return whole_row(seen.id)
end
if row then move(seen.id, row.st, done.state, row.ex) else enter(seen, done.state) end
set(seen.id, {at = '', mi = '', fp = '', gs = ''})
set_result(seen.id, done)
if row then announce(seen.id, done.state) end
return whole_row(seen.id)
