-- ARGV: task, window, the task's queue. Answers how many messages to send, so that one waits in the queue for each shard
-- that waits in its job's list, up to the window. Counted anew each time: a message that is lost is missed at once, and
-- one that comes twice makes room for none.
local lanes, found, window = redis.call('ZRANGE', P .. 'ready:' .. ARGV[1], 0, -1), 0, tonumber(ARGV[2])
for _, lane in ipairs(lanes) do
  for _, id in ipairs(redis.call('ZRANGE', P .. 'ready:' .. ARGV[1] .. ':' .. lane, 0, window - 1)) do
    found = found + waiting(id)
    if found >= window then return math.max(0, window - redis.call('LLEN', ARGV[3])) end
  end
end
return math.max(0, found - redis.call('LLEN', ARGV[3]))
