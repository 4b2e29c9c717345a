-- Shared by the scripts that read a record; its layout is in codec.rs. The answers of all scripts:
local MISSING, DONE, CONFLICT, CORRUPT, EXISTS, INDEX_FIRST, TELL = 0, 1, 2, 3, 4, 5, 6

-- What the first byte of a record says, and the last place of the longest subject.
local FORMAT, SUBJECT_END = 1, 293

-- Why what is stored under `key`, which begins with `head`, is not what was expected.
local function mismatch(key, head)
  if head == '' and redis.call('EXISTS', key) == 0 then return MISSING end
  if string.byte(head) ~= FORMAT or #head < 23 then return CORRUPT end
  return CONFLICT
end

-- The subject in a header, '' for none.
local function subject_of(head)
  local len = string.byte(head, 22) or 0
  if string.byte(head) ~= FORMAT or len == 0 or #head < 39 + len then return '' end
  return string.sub(head, 40, 39 + len)
end
