-- As lanes/lua/release.lua (where locks with word are kept), without a look at the owner.
local result = {}
for i, key in ipairs(KEYS) do
  if ARGV[2] == '0' and redis.call('HGET', key, 'o') ~= ARGV[1] then
    result[i] = 0
  elseif ARGV[2] == '1' and redis.call('HDEL', key, 'w') == 1 then
    result[i] = 2
  else
    redis.call('DEL', key)
    result[i] = 1
  end
end
return result
