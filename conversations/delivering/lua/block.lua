-- Obeys a platform's Retry-After: until its end, admit.lua admits no send to the bucket. The end
-- only moves later, so that a shorter wait does not undo a longer one.
-- KEYS: bucket. ARGV: wait in us. Returns 1.
local clock = redis.call('TIME')
local free_at = tonumber(clock[1]) * 1000000 + tonumber(clock[2]) + tonumber(ARGV[1])
local known = tonumber(redis.call('GET', KEYS[1]) or 0)
if free_at > known then
  redis.call('SET', KEYS[1], string.format('%.0f', free_at), 'PX', math.ceil(tonumber(ARGV[1]) / 1000) + 60000)
end
return 1
