-- Moves a record to another key. KEYS: from, to, index (only with a subject). ARGV: expected head,
-- record, expiry, new key, indexed until, old key, prefix.
local head = redis.call('GETRANGE', KEYS[1], 0, 8)
if head ~= ARGV[1] then return mismatch(KEYS[1], head) end
if redis.call('EXISTS', KEYS[2]) == 1 then return EXISTS end
if KEYS[3] then
  if barred(KEYS[3]) then return BARRED end
  keep(KEYS[3], ARGV[4], ARGV[5], ARGV[7])
  redis.call('ZREM', KEYS[3], ARGV[6])
end
redis.call('SET', KEYS[2], ARGV[2], 'PXAT', ARGV[3])
redis.call('DEL', KEYS[1])
return DONE
