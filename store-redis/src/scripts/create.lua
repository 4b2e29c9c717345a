-- Stores a record with a subject. KEYS: record, index. ARGV: record, expiry, key, indexed until,
-- prefix.
if redis.call('EXISTS', KEYS[1]) == 1 then return EXISTS end
keep(KEYS[2], ARGV[3], ARGV[4], ARGV[5])
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
return DONE
