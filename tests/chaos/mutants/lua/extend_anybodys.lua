-- As lanes/lua/extend.lua, without a look at the owner.
local result = {}
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, 'o', ARGV[1])
  redis.call('PEXPIRE', key, ARGV[2])
  result[i] = 1
end
return result
