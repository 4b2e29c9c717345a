-- Lets a session go to another node: the one step that decides a move. May be repeated. KEYS: record.
-- ARGV: expected head, what is left behind, until when, and how that begins.
local head = redis.call('GETRANGE', KEYS[1], 0, 8)
if head == ARGV[4] then return DONE end
if head ~= ARGV[1] then return mismatch(KEYS[1], head) end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
return DONE
