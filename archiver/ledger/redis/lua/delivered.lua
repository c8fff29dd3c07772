-- Removes the event with this number. Events are delivered from the front, so it is one of the first.
local number, key = take(), prefix .. 'outbox'
local first = 0
while true do
  local page = redis.call('LRANGE', key, first, first + 99)
  if not page[1] then return 0 end
  for _, entry in ipairs(page) do
    if string.match(entry, '^%["(%d+)"') == number then return redis.call('LREM', key, 1, entry) end
  end
  first = first + 100
end
