-- Replaces a record by one with a subject. KEYS: record, index (not on a cluster). ARGV: expected
-- head, record, expiry, subject, key, '1' when the index was told before, and the prefix.
local head = redis.call('GETRANGE', KEYS[1], 0, SUBJECT_END)
if string.sub(head, 1, 9) ~= ARGV[1] then return mismatch(KEYS[1], head) end
local expiry, when = tonumber(ARGV[3]), BEFORE
local subject = subject_of(head)
if subject == ARGV[4] then when = tell(head, expiry) end
if KEYS[2] then
  if when then keep(KEYS[2], ARGV[5], expiry, ARGV[7]) end
elseif when == BEFORE and ARGV[6] ~= '1' then
  return INDEX_FIRST
end
local number = string.sub(subject ~= '' and head or ARGV[2], 36, 39)
local record = string.sub(ARGV[2], 1, 23) .. (when and told(expiry) or string.sub(head, 24, 35))
    .. number .. string.sub(ARGV[2], 40)
redis.call('SET', KEYS[1], record, 'PXAT', ARGV[3])
return when == SOME_TIME and not KEYS[2] and TELL or DONE
