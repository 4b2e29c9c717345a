-- Tells an index about a session. KEYS: index. ARGV: key, until, and '1' for a session that moves.
if ARGV[3] == '1' and barred(KEYS[1]) then return BARRED end
keep(KEYS[1], ARGV[1], ARGV[2])
return DONE
