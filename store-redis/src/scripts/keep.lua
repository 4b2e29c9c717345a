-- Tells an index about a session. KEYS: index. ARGV: key, expiry, and either the number of a session
-- that begins with how long (in milliseconds) that may take, or '' and 'prolong' for one that is there:
-- a full server has to let that pass, and does after a write that takes no room (see keep).
if ARGV[4] == 'prolong' then drop_over(KEYS[1]) end
keep(KEYS[1], ARGV[1], tonumber(ARGV[2]))
if ARGV[3] ~= '' then
  local latest = math.min(now() + ARGV[4], tonumber(ARGV[2]))
  redis.call('ZADD', KEYS[1], string.format('%.0f', latest), COMING .. ARGV[1] .. ARGV[3])
end
return DONE
