-- Extends locks by owner token. A lock that has vanished (FLUSHALL, expiry) is taken again if it is
-- free.
-- KEYS: locks. ARGV: owner token, TTL in ms. Returns a list: 1 this owner's, 0 another's.
-- Idempotent.
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
