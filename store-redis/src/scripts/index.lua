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

local function drop_over(index)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. string.format('%.0f', now()))
end

-- Drops those of `members` whose records are gone; not the bar, and not `new`. Only on a single node,
-- where a record and its entry are written in one step: on a cluster the record of an entry may be
-- about to come.
local function prune(index, members, prefix, new)
  for _, member in ipairs(members) do
    if #member == 32 and member ~= new
        and redis.call('EXISTS', prefix .. '#' .. string.sub(member, 1, 20)) == 0 then
      redis.call('ZREM', index, member)
    end
  end
end

-- Holds `member` at least until `till`, drops what is over, and ends with its last entry. On a single
-- node, where it is given the prefix of all keys, it prunes two members taken at random: one for the
-- entry that comes, and one more. The entry is written first: a full server refuses a script at its
-- first write if that takes room, and lets everything pass after one that takes none.
local function keep(index, member, till, prefix)
  local others = prefix and redis.call('ZRANDMEMBER', index, 2) or {}
  redis.call('ZADD', index, 'GT', till, member)
  drop_over(index)
  prune(index, others, prefix, member)
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')
  if last[2] then redis.call('PEXPIREAT', index, string.format('%.0f', tonumber(last[2]))) end
end
