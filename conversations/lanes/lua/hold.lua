-- Hold lanes: each key that is free, or already this owner's, becomes this owner's; on a taken one word is left.
-- KEYS: locks. ARGV: owner token, ttl in ms. Returns a list: 1 held, 0 taken. Idempotent.
local result = {}
for i, key in ipairs(KEYS) do
  local owner = redis.call('HGET', key, 'o')
  if not owner or owner == ARGV[1] then
    redis.call('HSET', key, 'o', ARGV[1])
    redis.call('PEXPIRE', key, ARGV[2])
    result[i] = 1
  else
    redis.call('HSET', key, 'w', '1')
    result[i] = 0
  end
end
return result
