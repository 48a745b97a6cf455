-- Releases locks by owner token: deletes a lock, or keeps it if somebody left word. One step, so
-- that no word is lost.
-- KEYS: locks. ARGV: owner token; 1: keep locks with word, 0: delete all (the owner ends).
-- Returns a list: 1 released, 2 kept because of word, 0 another's.
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
