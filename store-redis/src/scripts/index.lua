-- Shared by the scripts that write to the index of a subject: a sorted set of session keys, each
-- with the time (in milliseconds) until which the session may live. The member "!" is a bar: while
-- it stands, all sessions of the subject are being ended, and none may move to another token.

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function barred(index)
  local till = redis.call('ZSCORE', index, '!')
  return till and tonumber(till) > now()
end

-- Holds `member` at least until `till`, drops what is over, and ends with its last entry.
local function keep(index, member, till)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. string.format('%.0f', now()))
  redis.call('ZADD', index, 'GT', till, member)
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')
  redis.call('PEXPIREAT', index, string.format('%.0f', tonumber(last[2])))
end
