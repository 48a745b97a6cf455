-- Leaves hints, each id once, and rings: where the bell is silent, sets it and pushes a task.
-- KEYS: bell, tenants that have hints, and the task's queue where this Redis is the broker.
-- ARGV: TTL of the bell in ms, the task, most hints of a tenant, then per tenant: its id, how many
-- ids follow, conversation ids. Of a tenant with too many hints none is added: its rows are due.
-- Returns 1 where it rang and nobody pushed a task: the caller publishes it. Idempotent.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local i = 4
while ARGV[i] do
  local hints, last = KEYS[2] .. ':' .. ARGV[i], i + 1 + ARGV[i + 1]
  local room = ARGV[3] - redis.call('ZCARD', hints)
  for j = i + 2, math.min(last, i + 1 + room) do
    redis.call('ZADD', hints, 'NX', string.format('%.0f', now + j), ARGV[j])
  end
  redis.call('ZADD', KEYS[2], 'NX', string.format('%.0f', now), ARGV[i])
  i = last + 1
end
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 0 end
if not KEYS[3] then return 1 end
if redis.call('LLEN', KEYS[3]) < 2 then redis.call('LPUSH', KEYS[3], ARGV[2]) end
return 0
