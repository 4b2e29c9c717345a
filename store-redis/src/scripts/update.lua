-- Replaces a record, without a subject before or after. KEYS: record. ARGV: expected head, record,
-- expiry.
local head = redis.call('GETRANGE', KEYS[1], 0, 8)
if head ~= ARGV[1] then return mismatch(KEYS[1], head) end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return DONE
