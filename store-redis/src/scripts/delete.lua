-- Removes a record. KEYS: record. ARGV: the head that it has to have ('' for any, also of what is no
-- record), key, the prefix ('' on a cluster). On a cluster, the header comes back when an index has
-- to forget the session.
local head = redis.pcall('GETRANGE', KEYS[1], 0, 548)
if type(head) == 'table' then
  if ARGV[1] ~= '' then return head end
  head = ''
end
if ARGV[1] ~= '' and string.sub(head, 1, 9) ~= ARGV[1] then return mismatch(KEYS[1], head) end
if redis.call('DEL', KEYS[1]) == 0 then return MISSING end
local subject = subject_of(head)
if subject == '' then return DONE end
if ARGV[3] == '' then return head end
redis.call('ZREM', ARGV[3] .. '@' .. subject, ARGV[2])
return DONE
