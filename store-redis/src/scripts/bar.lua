-- Bars an index for a while and returns the keys in it. KEYS: index. ARGV: milliseconds.
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
keep(KEYS[1], '!', string.format('%.0f', now() + ARGV[1]))
return redis.call('ZRANGE', KEYS[1], 0, -1)
