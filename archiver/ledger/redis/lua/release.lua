-- Ends a lease of lease_ended. Returns the row as JSON, or nothing when the lease is lost. `call`: see `lease` in
-- _shared.lua; `settles`: whether a settlement follows the copies.
local id, fence, call = take(), take(), take()
local row = read(id)
if not row then return false end
if row.ca == call then return cjson.encode(whole_row(id)) end
if not owns(row, fence) or row.lu == 0 then return false end

local copies, keep_work, settles = take_copies(), take() == '1', take() == '1'
set(id, {ho = '', lu = '', ca = call})
redis.call('HDEL', prefix .. 'progress', id)
if not keep_work then forget_work(id) end
if settles then
  local done = take_settlement()
  set_result(id, done)
  if done.state ~= row.st then move(id, row.st, done.state, row.ex) end
  copies = copies or done.cp
  if copies then set_copies(id, copies) end
  if done.state ~= row.st then announce(id, done.state) end
elseif copies then
  set_copies(id, copies)
end
return cjson.encode(whole_row(id))
