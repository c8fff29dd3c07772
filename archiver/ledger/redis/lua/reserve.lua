-- Returns after how many microseconds the amount is earned at this rate, behind what was reserved before.
local key, amount, per_second = prefix .. 'rate:' .. take(), tonumber(take()), tonumber(take())
local longest = tonumber(take())
local earned_at = math.max(tonumber(redis.call('GET', key) or 0), now) + amount / per_second * 1000000
earned_at = math.min(earned_at, now + longest) -- the server's clock may have been set back
redis.call('SET', key, whole(earned_at), 'PX', math.ceil((earned_at - now) / 1000) + 1)
return whole(earned_at - now)
