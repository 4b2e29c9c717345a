-- Bars an index for a while and returns the keys in it. KEYS: index. ARGV: milliseconds.
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
-- First a write that takes no room (see keep): a full server has to let sessions be ended.
drop_over(KEYS[1])
keep(KEYS[1], '!', string.format('%.0f', now() + ARGV[1]))
return redis.call('ZRANGE', KEYS[1], 0, -1)
