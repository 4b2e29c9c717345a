-- Removes whatever is at the place of a record, and returns its header. The note of a session that
-- has gone stays: where it went, it is known by this. KEYS: record.
local head = redis.call('GETRANGE', KEYS[1], 0, 538)
local format = string.byte(head)
if format == ARRIVES then return ARRIVING end
if format == GONE and #head == 41 then return MISSING end
redis.call('DEL', KEYS[1])
return head
