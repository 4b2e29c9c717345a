-- Removes a record of one revision. KEYS: record. ARGV: expected head.
local head = redis.call('GETRANGE', KEYS[1], 0, 8)
if head ~= ARGV[1] then return mismatch(KEYS[1], head) end
redis.call('DEL', KEYS[1])
return DONE
