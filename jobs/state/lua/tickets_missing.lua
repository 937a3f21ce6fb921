-- Returns how many messages to send, so that one waits in the task's Celery queue for each shard that waits in its job's
-- list, up to the window. Counted anew each time: a lost message is missed at once, and one that comes twice makes no room.
-- needs: queue
local queue = unpack(KEYS)
local task, window = unpack(ARGV)
local ready, found = P .. 'ready:' .. task, 0
window = tonumber(window)
for _, lane in ipairs(redis.call('ZRANGE', ready, 0, -1)) do
  for _, job in ipairs(redis.call('ZRANGE', ready .. ':' .. lane, 0, window - 1)) do
    found = found + waiting(job)
    if found >= window then return math.max(0, window - redis.call('LLEN', queue)) end
  end
end
return math.max(0, found - redis.call('LLEN', queue))
