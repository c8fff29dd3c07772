-- Returns the row, or nothing for an unknown asset.
local id, keep_stored = take(), take() == '1'
local row = read(id)
if not row then return false end
if not living(id, row) and not leased(row) then reopen(id, row, keep_stored) end
return whole_row(id)
