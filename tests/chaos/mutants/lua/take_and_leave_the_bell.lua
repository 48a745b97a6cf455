-- Hints are taken, and nobody silences the bell.
local taken = {0}
for _, tenant in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local hints = KEYS[2] .. ':' .. tenant
  local popped = redis.call('ZPOPMIN', hints, ARGV[3] + 1 - #taken)
  for i = 1, #popped, 2 do taken[#taken + 1] = tonumber(popped[i]) end
  if redis.call('EXISTS', hints) == 0 then redis.call('ZREM', KEYS[2], tenant) end
end
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('LPUSH', KEYS[3], ARGV[2]) end
return taken
