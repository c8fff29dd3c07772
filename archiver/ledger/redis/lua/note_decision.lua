-- Adds a decision, one line of JSON, to an asset's history, unless it is there. Returns the row, or nothing for an
-- unknown asset.
local id, line, most = take(), take(), tonumber(take())
if not read(id) then return false end
local lines = {}
for known in string.gmatch(redis.call('HGET', asset_key(id), 'hi') or '', '[^\n]+') do
  if known == line then return whole_row(id) end
  lines[#lines + 1] = known
end
lines[#lines + 1] = line
set(id, {hi = table.concat(lines, '\n', math.max(1, #lines - most + 1))})
return whole_row(id)
