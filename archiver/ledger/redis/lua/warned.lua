-- Returns up to `limit` rows archived with a warning, the latest first.
local limit = tonumber(take())
local rows = {}
if limit < 1 then return rows end
for _, id in ipairs(redis.call('ZRANGE', prefix .. 'warned', 0, limit - 1, 'REV')) do
  local row = whole_row(id)
  if row[2] then rows[#rows + 1] = row end
end
return rows
