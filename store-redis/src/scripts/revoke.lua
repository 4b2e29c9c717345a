-- Removes a record if it belongs to a subject, and says until when the index holds it. KEYS: record.
-- ARGV: subject.
local head = redis.call('GETRANGE', KEYS[1], 0, 283)
if string.byte(head) == ARRIVES then return ARRIVING end
if string.byte(head) ~= AT_REST then return MISSING end
local subject, till = subject_of(head)
if subject ~= ARGV[1] then return MISSING end
redis.call('DEL', KEYS[1])
return till
