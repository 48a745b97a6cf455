-- Deletes the locks that a token still owns: of a dead process, or of a hold whose answer was lost.
-- KEYS: locks. ARGV: owner token. Returns a list: 1 deleted, 0 another's or nobody's. Idempotent.
local result = {}
for i, key in ipairs(KEYS) do
  if redis.call('HGET', key, 'o') == ARGV[1] then
    redis.call('DEL', key)
    result[i] = 1
  else
    result[i] = 0
  end
end
return result
