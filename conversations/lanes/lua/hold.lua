-- Locks lanes: a key that is free or this owner's becomes this owner's. On another's it leaves word
-- (field w).
-- KEYS: locks. ARGV: owner token, TTL in ms. Returns a list: 1 held, 0 another's. Idempotent.
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
