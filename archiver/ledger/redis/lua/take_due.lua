-- Queues what is ready, by deadline: at most `limit` at once, at most `window` queued in all. Returns the rows.
local window, limit, requeue_after = tonumber(take()), tonumber(take()), tonumber(take())
local rows = {}

local function queue(id, from)
  local row = read(id)
  if row then
    move(id, row.st, 'queued', row.ex, whole(now))
    rows[#rows + 1] = whole_row(id)
  else -- only a server that evicts keys loses a row alone
    redis.call('ZREM', from, id)
  end
end

-- Queued for too long, or by a clock that was set back since: the message was lost. It still counts in the window.
local function is_late(since)
  return since < now - requeue_after or since > now + CLOCK_STEP
end
local overdue = redis.call('ZCOUNT', time_key('queued'), '-inf', '(' .. whole(now - requeue_after))
overdue = overdue + redis.call('ZCOUNT', time_key('queued'), '(' .. whole(now + CLOCK_STEP), '+inf')
local number_late = math.min(overdue, limit, window)
local late, first = {}, 0
while #late < 2 * number_late do
  local queued = redis.call('ZRANGE', state_key('queued'), first, first + 499, 'WITHSCORES')
  if not queued[1] then break end
  for i = 1, #queued, 2 do
    local since = redis.call('ZSCORE', time_key('queued'), queued[i])
    if since and is_late(tonumber(since)) and #late < 2 * number_late then
      late[#late + 1] = queued[i]
      late[#late + 1] = queued[i + 1]
    end
  end
  first = first + 500
end

-- Three lists, each by deadline, merged; the others need room in the window.
local room = math.max(math.min(limit, window - redis.call('ZCARD', state_key('queued'))), 0)
local sources = {time_key('queued'), state_key('discovered'), prefix .. 'ready'}
local lists, at = {late, {}, {}}, {1, 1, 1}
if room > 0 then
  for n = 2, 3 do
    lists[n] = redis.call('ZRANGE', sources[n], 0, room - 1, 'WITHSCORES')
  end
end
for _ = 1, limit do
  local best
  for n, list in ipairs(lists) do
    local id, expires = list[at[n]], tonumber(list[at[n] + 1])
    local fits = n == 1 or room > 0
    if id and fits and (not best or expires < best.expires or (expires == best.expires and id < best.id)) then
      best = {id = id, expires = expires, source = n}
    end
  end
  if not best then break end
  at[best.source] = at[best.source] + 2
  if best.source ~= 1 then room = room - 1 end
  queue(best.id, sources[best.source])
end
return rows
