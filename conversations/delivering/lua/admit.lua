-- Admits sends by GCRA (a leaky bucket that stores one time), each in several buckets, all or
-- nothing, by the clock of Redis, which all senders share.
-- A bucket of N per period allows a burst of N/10 and spaces the rest: no period holds more than N.
-- KEYS: buckets, group after group; a group is a send.
-- ARGV: number of groups; then per group: number of its buckets; then per bucket: interval, burst,
-- and time since the last send that the caller knows of, all in us (-1: it does not know of one;
-- -2: it knows that there was none).
-- Returns a wait in us per group; 0: admitted, and counted. Groups that wait for the same bucket
-- get successive times. A missing bucket starts without a burst, one interval after the last known
-- send, or after now if none is known: after a loss of Redis's data there is never a burst.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local waits, waiting, k, a = {}, {}, 0, 1
local function keep(key, at, life) redis.call('SET', key, string.format('%.0f', at), 'PX', math.ceil(life / 1000) + 60000) end
for group = 1, tonumber(ARGV[1]) do
  local size = tonumber(ARGV[a + 1])
  local wait, full, times = 0, nil, {}
  for i = 1, size do
    local key, at = KEYS[k + i], a + 3 * i - 1
    local interval, slack, ago = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local tat = tonumber(redis.call('GET', key))
    if not tat then
      tat = now + slack
      if ago == -1 then
        tat = tat + interval
        keep(key, tat, interval + slack)
      elseif ago >= 0 then
        tat = tat + math.max(interval - ago, 0)
      end
    end
    times[i] = math.max(tat, now) + interval
    local left = tat - slack - now
    if left > 0 then
      left = left + (waiting[key] or 0) * interval
      if left > wait then wait, full = left, key end
    end
  end
  if wait == 0 then
    for i = 1, size do keep(KEYS[k + i], times[i], times[i] - now) end
  elseif full then
    waiting[full] = (waiting[full] or 0) + 1
  end
  waits[group] = math.ceil(wait)
  k, a = k + size, a + 1 + 3 * size
end
return waits
