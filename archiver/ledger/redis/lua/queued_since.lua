-- When the asset that has been queued for longest was queued.
return redis.call('ZRANGE', time_key('queued'), 0, 0, 'WITHSCORES')[2] or false
