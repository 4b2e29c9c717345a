-- Drops members of an index that were found without a record. KEYS: index. ARGV: prefix, members.
prune(KEYS[1], ARGV, table.remove(ARGV, 1))
return DONE
