-- Replaces a record by one with a subject. KEYS: record, index (not on a cluster). ARGV: expected
-- head, record, expiry, subject, key, indexed until, '1' when the index holds that already, and the
-- prefix.
local head = redis.call('GETRANGE', KEYS[1], 0, 283)
if string.sub(head, 1, 9) ~= ARGV[1] then return mismatch(KEYS[1], head) end
local subject, till = subject_of(head)
if subject == ARGV[4] and tonumber(ARGV[3]) <= till then
  redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
  redis.call('SETRANGE', KEYS[1], 23, string.sub(head, 24, 29))
  return DONE
end
if KEYS[2] then
  keep(KEYS[2], ARGV[5], ARGV[6], ARGV[8])
elseif ARGV[7] ~= '1' then
  return INDEX_FIRST
end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return DONE
