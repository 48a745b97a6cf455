-- A ring that asks neither the bell nor the length of the queue.
redis.call('ZADD', KEYS[2], 1, ARGV[4])
for j = 6, #ARGV do redis.call('ZADD', KEYS[2] .. ':' .. ARGV[4], 'NX', j, ARGV[j]) end
redis.call('LPUSH', KEYS[3], ARGV[2])
return 0
