-- What up to `limit` assets of one state from rank `first` on amount to, by the hour of their deadline (hours since
-- 1970): how many were read, then hour, assets, bytes and assets without a size, again and again.
local state, first, limit = take(), tonumber(take()), tonumber(take())
local page = redis.call('ZRANGE', state_key(state), first, first + limit - 1, 'WITHSCORES')
local hours, order = {}, {}
for i = 1, #page, 2 do
  local hour = math.floor(tonumber(page[i + 1]) / 3600000000)
  local found = redis.call('HMGET', asset_key(page[i]), 'sb', 'si')
  local size = tonumber(found[1] or found[2] or nil)
  local amount = hours[hour]
  if not amount then
    amount = {0, 0, 0}
    hours[hour] = amount
    order[#order + 1] = hour
  end
  amount[1] = amount[1] + 1
  amount[2] = amount[2] + (size or 0)
  amount[3] = amount[3] + (size and 0 or 1)
end
local answer = {#page / 2}
for _, hour in ipairs(order) do
  answer[#answer + 1] = whole(hour)
  for _, number in ipairs(hours[hour]) do
    answer[#answer + 1] = whole(number)
  end
end
return answer
