-- Returns the row, or nothing for an unknown asset.
local id, keep_stored, un_erase = take(), take() == '1', take() == '1'
local row = read(id)
if not row then return false end
if not living(id, row) and not leased(row) and (un_erase or not REMOVED[row.st]) then reopen(id, row, keep_stored) end
return whole_row(id)
