-- Replaces a record by one without a subject. KEYS: record. ARGV: expected head, record, expiry.
-- The call that is made most: it stands by itself, because what is shared costs time at every run.
-- The answers are those of record.lua.
local head = redis.call('GETRANGE', KEYS[1], 0, 8)
if head == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
  return 1
end
if head == '' and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if string.byte(head) ~= 1 or #head < 9 then return 3 end
return 2
