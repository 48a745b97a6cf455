-- A bell that lives for ever.
redis.call('ZADD', KEYS[2], 1, ARGV[4])
for j = 6, #ARGV do redis.call('ZADD', KEYS[2] .. ':' .. ARGV[4], 'NX', j, ARGV[j]) end
if redis.call('SET', KEYS[1], '1', 'NX') then redis.call('LPUSH', KEYS[3], ARGV[2]) end
return 0
