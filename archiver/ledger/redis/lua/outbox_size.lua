return {redis.call('LLEN', prefix .. 'outbox'), redis.call('GET', prefix .. 'outbox_dropped') or 0}
