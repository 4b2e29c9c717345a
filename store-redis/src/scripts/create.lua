-- Stores a record with a subject on a single node. KEYS: record, index. ARGV: record, expiry, key,
-- prefix.
if redis.call('EXISTS', KEYS[1]) == 1 then return EXISTS end
keep(KEYS[2], ARGV[3], tonumber(ARGV[2]), ARGV[4])
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
return DONE
