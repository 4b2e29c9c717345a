-- Changes the expiry of a record. KEYS: record. ARGV: expiry, expiry as in a header, key, the prefix
-- ('' on a cluster), the subject whose index was told before. On a cluster, the subject comes back when
-- its index has to be told.
local head = redis.call('GETRANGE', KEYS[1], 0, SUBJECT_END)
if string.byte(head) ~= FORMAT or #head < 23 then
  local why = mismatch(KEYS[1], head)
  return why == CONFLICT and CORRUPT or why
end
local subject, expiry = subject_of(head), tonumber(ARGV[1])
local when = subject ~= '' and tell(head, expiry)
if when == BEFORE and ARGV[4] == '' and ARGV[5] ~= subject then return {INDEX_FIRST, subject} end
-- First what takes no room: a full server lets the rest pass then.
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then return DONE end
if when and ARGV[4] ~= '' then keep(ARGV[4] .. '@' .. subject, ARGV[3], expiry, ARGV[4]) end
if when then redis.call('SETRANGE', KEYS[1], 23, told(expiry)) end
redis.call('SETRANGE', KEYS[1], 9, ARGV[2])
if when == SOME_TIME and ARGV[4] == '' then return {TELL, subject} end
return DONE
