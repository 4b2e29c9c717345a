-- Drops a session from an index unless the index was told about it again. KEYS: index. ARGV: key,
-- until.
local till = redis.call('ZSCORE', KEYS[1], ARGV[1])
if till and tonumber(till) <= tonumber(ARGV[2]) then redis.call('ZREM', KEYS[1], ARGV[1]) end
return DONE
