-- Tells an index on a cluster that a record has come. KEYS: index. ARGV: the session's key and number.
-- A mark that is not there stays so: the session has ended since.
local latest = redis.call('ZSCORE', KEYS[1], COMING .. ARGV[1])
if latest then
  redis.call('ZREM', KEYS[1], COMING .. ARGV[1])
  redis.call('ZADD', KEYS[1], latest, THERE .. ARGV[1])
end
return DONE
