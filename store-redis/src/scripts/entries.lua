-- What is in an index and not over. KEYS: index.
drop_over(KEYS[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
