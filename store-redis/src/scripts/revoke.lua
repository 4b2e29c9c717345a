-- Removes a record if it belongs to a subject. KEYS: record, index (not on a cluster). ARGV: subject,
-- key. The number of what was removed comes back.
local head = redis.call('GETRANGE', KEYS[1], 0, SUBJECT_END)
if head == '' then return redis.call('EXISTS', KEYS[1]) == 0 and MISSING or CONFLICT end
if subject_of(head) ~= ARGV[1] then return CONFLICT end
redis.call('DEL', KEYS[1])
if KEYS[2] then redis.call('ZREM', KEYS[2], ARGV[2]) end
return string.sub(head, 36, 39)
