-- Drops entries whose records were found to be gone. KEYS: index. ARGV: the prefix on a single node,
-- '' on a cluster; then for each session its key, on a cluster followed by its number if that record was
-- seen: then it does not come any more, and its mark goes too. The entry of a session that begins
-- (again) stays.
local prefix = table.remove(ARGV, 1)
if prefix ~= '' then
  drop_dead(KEYS[1], ARGV, prefix)
  return DONE
end
for _, session in ipairs(ARGV) do
  if #session == 36 then redis.call('ZREM', KEYS[1], COMING .. session, THERE .. session) end
end
local beginning = marks(KEYS[1])
for _, session in ipairs(ARGV) do
  local key = string.sub(session, 1, 32)
  if not beginning[key] then redis.call('ZREM', KEYS[1], key) end
end
return DONE
