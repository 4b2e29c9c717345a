-- Changes the expiry of a record. KEYS: record. ARGV: expiry, expiry as in a header, key, the prefix
-- ('' on a cluster), and what an index already holds: subject, until. On a cluster, the header comes
-- back when the index has to be told first.
local head = redis.call('GETRANGE', KEYS[1], 0, 283)
if string.byte(head) ~= AT_REST or #head < 23 then
  local why = mismatch(KEYS[1], head)
  return why == CONFLICT and CORRUPT or why
end
local subject, till = subject_of(head)
local expiry = tonumber(ARGV[1])
if subject ~= '' and expiry > till then
  if ARGV[4] ~= '' then
    local lifetime = expiry - struct.unpack('>I6', head, 16)
    till = math.min(expiry + math.min(math.max(lifetime, 3600000), 2592000000), 253402300799999)
    keep(ARGV[4] .. '@' .. subject, ARGV[3], string.format('%.0f', till), ARGV[4])
  elseif subject == ARGV[5] and expiry <= tonumber(ARGV[6]) then
    till = tonumber(ARGV[6])
  else
    return head
  end
  redis.call('SETRANGE', KEYS[1], 23, struct.pack('>I6', till))
end
redis.call('SETRANGE', KEYS[1], 9, ARGV[2])
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
return DONE
