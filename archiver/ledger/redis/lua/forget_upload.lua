local work, key = prefix .. 'work:' .. take(), prefix .. take()
redis.call('SREM', work, key)
return redis.call('UNLINK', key)
