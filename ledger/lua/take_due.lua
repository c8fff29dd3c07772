-- Queues what is ready: at most `limit` at once, at most `window` queued in all. Returns the rows.
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

-- Queued for too long: its message was lost. It keeps its place in the window.
local overdue = '(' .. whole(now - requeue_after)
local late = redis.call('ZRANGEBYSCORE', time_key('queued'), '-inf', overdue, 'LIMIT', 0, math.min(limit, window))
for _, id in ipairs(late) do
  queue(id, time_key('queued'))
end

local room = math.min(limit - #late, window - redis.call('ZCARD', state_key('queued')))
if room <= 0 then return rows end

-- Two lists, each by deadline, merged.
local sources = {state_key('discovered'), prefix .. 'ready'}
local lists, at = {}, {1, 1}
for n, key in ipairs(sources) do
  lists[n] = redis.call('ZRANGE', key, 0, room - 1, 'WITHSCORES')
end
for _ = 1, room do
  local best
  for n, list in ipairs(lists) do
    local id, expires = list[at[n]], tonumber(list[at[n] + 1])
    if id and (not best or expires < best.expires or (expires == best.expires and id < best.id)) then
      best = {id = id, expires = expires, source = n}
    end
  end
  if not best then break end
  at[best.source] = at[best.source] + 2
  queue(best.id, sources[best.source])
end
return rows
