-- What is stored of up to `limit` assets of one state from rank `first` on, by the 6 letters of their copies: how many
-- were read, then letters and bytes, again and again.
local state, first, limit = take(), tonumber(take()), tonumber(take())
local page = redis.call('ZRANGE', state_key(state), first, first + limit - 1)
local bytes, order = {}, {}
for _, id in ipairs(page) do
  local _, copies = read_copies(id)
  local size = copies ~= '' and tonumber(redis.call('HGET', asset_key(id), 'sb') or 0) or 0
  for i = 1, #copies, 6 do
    local letters = string.sub(copies, i, i + 5)
    if not bytes[letters] then
      bytes[letters] = 0
      order[#order + 1] = letters
    end
    bytes[letters] = bytes[letters] + size
  end
end
local answer = {#page}
for _, letters in ipairs(order) do
  answer[#answer + 1] = letters
  answer[#answer + 1] = whole(bytes[letters])
end
return answer
