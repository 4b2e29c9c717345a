-- Makes a record out of one that was arriving. May be repeated. KEYS: record. ARGV: how it begins.
if redis.call('GETRANGE', KEYS[1], 0, 8) == ARGV[1] then
  redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], 49, -1), 'KEEPTTL')
end
return DONE
