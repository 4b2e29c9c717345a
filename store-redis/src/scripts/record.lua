-- Shared by the scripts that read a record; its layout is in codec.rs. The answers of all scripts:
local DONE, MISSING, CONFLICT, CORRUPT, EXISTS, INDEX_FIRST, BARRED, ARRIVING = 1, 0, 2, 3, 4, 5, 6, 7

-- The first bytes of a record, of one that arrives from another node, and of what is left of one
-- that has gone to another node.
local AT_REST, ARRIVES, GONE = 1, 2, 4

-- Why what is stored under `key`, which begins with `head`, is not what was expected.
local function mismatch(key, head)
  if head == '' and redis.call('EXISTS', key) == 0 then return MISSING end
  local format = string.byte(head)
  if format == ARRIVES then return ARRIVING end
  if format == GONE then return MISSING end
  if format ~= AT_REST or #head < 9 then return CORRUPT end
  return CONFLICT
end

-- The subject in a header, '' for none, and until when its index holds the session.
local function subject_of(head)
  local len = string.byte(head, 22) or 0
  if len == 0 or #head < 29 + len then return '', 0 end
  return string.sub(head, 30, 29 + len), struct.unpack('>I6', head, 24)
end
