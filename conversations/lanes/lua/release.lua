-- Release locks by owner token: if word was left, keep the lock and go on; else delete it. One step, so no word is lost.
-- KEYS: locks. ARGV: owner token; 1: keep on word, 0: delete in any case (the owner ends).
-- Returns a list: 1 released, 2 kept because word was left, 0 somebody else's.
local result = {}
for i, key in ipairs(KEYS) do
  if redis.call('HGET', key, 'o') ~= ARGV[1] then
    result[i] = 0
  elseif ARGV[2] == '1' and redis.call('HDEL', key, 'w') == 1 then
    result[i] = 2
  else
    redis.call('DEL', key)
    result[i] = 1
  end
end
return result
