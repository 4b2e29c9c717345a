-- Shared by the scripts that write to the index of a subject: a sorted set of session keys, each
-- with the time (in milliseconds) until which it is held. On a cluster, where the record is stored
-- after its entry, the set also has a mark for each session that began a moment ago: '?', or '!' once
-- its creator knows that the record is there, then the key and a number that the record has too, with
-- the time after which its record cannot come any more. Both keep its entry from whoever looked for
-- the record before it came; only the first keeps somebody waiting for the record.

local COMING, THERE = '?', '!'

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- By how much an entry outlives the expiry that the index was told: the lifetime that the session
-- had left, but an hour at least and thirty days at most.
local function slack(lifetime)
  return math.min(math.max(lifetime, 3600000), 2592000000)
end

local function drop_over(index)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. string.format('%.0f', now()))
end

-- The marks in an index, each under its session's key.
local function marks(index)
  local found = {}
  local latest = string.format('%.0f', now() + 3600000)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', latest)) do
    local kind = string.sub(member, 1, 1)
    if #member == 37 and (kind == COMING or kind == THERE) then
      found[string.sub(member, 2, 33)] = true
    end
  end
  return found
end

-- Ends an index with its last entry.
local function end_with_last(index)
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')
  if last[2] then redis.call('PEXPIREAT', index, string.format('%.0f', tonumber(last[2]))) end
end

-- Drops those of `members` whose records are gone, and not `new`. Only on a single node, where a
-- record and its entry are written in one step.
local function drop_dead(index, members, prefix, new)
  for _, member in ipairs(members) do
    if #member == 32 and member ~= new
        and redis.call('EXISTS', prefix .. '#' .. string.sub(member, 1, 20)) == 0 then
      redis.call('ZREM', index, member)
    end
  end
end

-- Holds `member`, whose session expires at `expiry`, and drops what is over. On a single node, where
-- it is given the prefix of all keys, it looks at two members taken at random: one for the entry that
-- comes, and one more. The entry is written first: a full server refuses a script at its first write
-- if that takes room, and lets everything pass after one that takes none.
local function keep(index, member, expiry, prefix)
  local till = math.min(expiry + slack(expiry - now()), 253402300799999)
  local others = prefix and redis.call('ZRANDMEMBER', index, 2) or {}
  redis.call('ZADD', index, 'GT', string.format('%.0f', till), member)
  drop_over(index)
  drop_dead(index, others, prefix, member)
  end_with_last(index)
end

-- Whether the index of a session, whose record begins with `head`, has to hear of it before its
-- expiry becomes `expiry`, or should hear of it again some time: a failover may have lost what it was
-- told, so that it is told again after a tenth of the lifetime.
local BEFORE, SOME_TIME = 1, 2
local function tell(head, expiry)
  local told, known = struct.unpack('>I6I6', head, 24)
  if expiry > known + slack(known - told) / 2 then return BEFORE end
  if math.abs(now() - told) > (expiry - now()) / 10 then return SOME_TIME end
end

-- What a record says about when its index was told, and of which expiry.
local function told(expiry)
  return struct.pack('>I6I6', now(), expiry)
end
