-- Delete locks that a token still owns (of a dead process; of a hold whose answer never came). Idempotent.
-- KEYS: locks. ARGV: owner token. Returns how many.
local freed = 0
for _, key in ipairs(KEYS) do
  if redis.call('HGET', key, 'o') == ARGV[1] then
    redis.call('DEL', key)
    freed = freed + 1
  end
end
return freed
