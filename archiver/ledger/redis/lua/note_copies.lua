-- Sets which destinations hold an asset if its state was last set at `changed` and its copies are `before`, and no
-- worker has it. Returns 1 if so.
local id, changed = take(), take()
local before, copies = take_copies(), take_copies()
local row = read(id)
if not row or row.st == 'running' or leased(row) then return 0 end
if redis.call('HGET', asset_key(id), 'ch') ~= changed then return 0 end
local _, there, is_valid = read_copies(id)
if (is_valid and there or '') ~= before then return 0 end
if there ~= copies or not is_valid then set_copies(id, copies) end
return 1
