-- Ends the waits of the named assets, but of those whose state was set less than `within` microseconds ago. Returns the
-- ids that are unknown.
local within, unknown = tonumber(take()), {}
for id in take do
  local row = read(id)
  if not row then
    unknown[#unknown + 1] = id
  elseif row.st == 'waiting' and row.nx > now then
    if tonumber(redis.call('HGET', asset_key(id), 'ch')) <= now - within then
      set(id, {nx = now})
      -- of the two lists that a waiting asset may be in, the one that it is in
      redis.call('ZADD', time_key('waiting'), 'XX', whole(now), id)
      redis.call('ZADD', time_key('ready'), 'XX', whole(now), id)
    end
  end
end
return unknown
