-- Extend locks by owner token; one that is gone (FLUSHALL, expiry) and free is taken again.
-- KEYS: locks. ARGV: owner token, ttl in ms. Returns a list: 1 still this owner's, 0 somebody else's. Idempotent.
local result = {}
for i, key in ipairs(KEYS) do
  local owner = redis.call('HGET', key, 'o')
  if not owner or owner == ARGV[1] then
    redis.call('HSET', key, 'o', ARGV[1])
    redis.call('PEXPIRE', key, ARGV[2])
    result[i] = 1
  else
    result[i] = 0
  end
end
return result
