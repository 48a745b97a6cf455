-- Admit sends by GCRA, several buckets each, all or nothing, by the server's clock. Never a burst.
-- KEYS: buckets, group after group. ARGV: groups, then per group: buckets in it, and per bucket: interval in us,
-- time in us since the last send that the caller knows of (-1: knows of none; -2: knows that there was none).
-- Returns a wait in us per group: 0 admitted, and counted. A missing bucket starts one interval after the last known
-- send, or after now; that is written down, so that the next caller need not guess.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local waits, k, a = {}, 0, 1
for group = 1, tonumber(ARGV[1]) do
  local size = tonumber(ARGV[a + 1])
  local wait = 0
  for i = 1, size do
    local key, interval, ago = KEYS[k + i], tonumber(ARGV[a + 2 * i]), tonumber(ARGV[a + 2 * i + 1])
    local free_at = tonumber(redis.call('GET', key))
    if not free_at then
      if ago == -2 then free_at = 0
      elseif ago >= 0 then free_at = now - ago + interval
      else
        free_at = now + interval
        redis.call('SET', key, string.format('%.0f', free_at), 'PX', math.ceil(interval / 1000) + 60000)
      end
    end
    if free_at - now > wait then wait = free_at - now end
  end
  if wait == 0 then
    for i = 1, size do
      local interval = tonumber(ARGV[a + 2 * i])
      redis.call('SET', KEYS[k + i], string.format('%.0f', now + interval), 'PX', math.ceil(interval / 1000) + 60000)
    end
  end
  waits[group] = wait
  k, a = k + size, a + 1 + 2 * size
end
return waits
