-- Locks lanes: a key that is free or this owner's becomes this owner's. On another's it leaves word
-- (field w). A lock without a TTL, which no script of ours leaves, gets one: nobody would free it.
-- KEYS: locks. ARGV: owner token, TTL in ms.
-- Returns a list: 1 held, 0 another's, 2 another's that had no TTL. Idempotent.
local result = {}
for i, key in ipairs(KEYS) do
  local owner = redis.call('HGET', key, 'o')
  if not owner or owner == ARGV[1] then
    redis.call('HSET', key, 'o', ARGV[1])
    redis.call('PEXPIRE', key, ARGV[2])
    result[i] = 1
  else
    redis.call('HSET', key, 'w', '1')
    if redis.call('PTTL', key) == -1 then
      redis.call('PEXPIRE', key, ARGV[2])
      result[i] = 2
    else
      result[i] = 0
    end
  end
end
return result
