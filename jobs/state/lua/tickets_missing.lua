-- Returns how many messages to send, so that one waits in the task's Celery queue for each shard that waits in its job's
-- list, up to the window. Counted anew each time: a lost message is missed at once, and one that comes twice makes no room.
-- What another process is about to send counts for a few seconds, until it says that it has (tickets_sent.lua).
-- needs: queue
local queue = unpack(KEYS)
local task, window = unpack(ARGV)
local ready, promised, found = P .. 'ready:' .. task, P .. 'promised:' .. task, 0
window = tonumber(window)
for _, lane in ipairs(redis.call('ZRANGE', ready, 0, -1)) do
  for _, job in ipairs(redis.call('ZRANGE', ready .. ':' .. lane, 0, window - 1)) do
    found = found + waiting(job)
    if found >= window then break end
  end
  if found >= window then break end
end
local there = redis.call('LLEN', queue) + tonumber(redis.call('GET', promised) or '0')
local missing = math.max(0, math.min(found, window) - there)
if missing > 0 then
  redis.call('INCRBY', promised, missing)
  redis.call('PEXPIRE', promised, 5000)
end
return missing
