-- Takes hints for one batch, of the tenants in turn. If hints are left, sets the bell and pushes the
-- next task in the same step; else silences the bell.
-- KEYS: bell, tenants that have hints, and the task's queue where this Redis is the broker.
-- ARGV: TTL of the bell in ms, the task, most ids in all (0: take none, pass the task on), most ids
-- of a tenant while several have hints, or had some within the last TTL ms.
-- Returns 1 where hints are left and nobody pushed a task, else 0; then the ids.
local most, taken, waiting = tonumber(ARGV[3]), {0}, {}
local several = KEYS[2] .. ':several'
local share = most
if redis.call('ZCARD', KEYS[2]) > 1 then redis.call('SET', several, '1', 'PX', ARGV[1]) end
if redis.call('EXISTS', several) == 1 then share = tonumber(ARGV[4]) end
while #taken <= most do
  local tenant = redis.call('ZPOPMIN', KEYS[2])[1]
  if not tenant then break end
  local hints = KEYS[2] .. ':' .. tenant
  local popped = redis.call('ZPOPMIN', hints, math.min(share, most + 1 - #taken))
  for i = 1, #popped, 2 do taken[#taken + 1] = tonumber(popped[i]) end
  if redis.call('EXISTS', hints) == 1 then waiting[#waiting + 1] = tenant end
end
local clock = redis.call('TIME')
for i, tenant in ipairs(waiting) do
  redis.call('ZADD', KEYS[2], string.format('%.0f', clock[1] * 1000000 + clock[2] + i), tenant)
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
  if not KEYS[3] then
    taken[1] = 1
  elseif redis.call('LLEN', KEYS[3]) < 2 then
    redis.call('LPUSH', KEYS[3], ARGV[2])
  end
end
return taken
