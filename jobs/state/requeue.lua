-- ARGV: task, seconds. Forgets releases older than that whose messages must be lost, since the queue is empty: the shards
-- are released again. Answers how many.
local queued, lost = P .. 'queued:' .. ARGV[1], 0
for _, member in ipairs(redis.call('ZRANGEBYSCORE', queued, '-inf', now() - tonumber(ARGV[2]), 'LIMIT', 0, 1000)) do
  local id, shard = member:match('^(.*)/(%d+)$')
  redis.call('ZREM', queued, member)
  if unfinished(id) then again(id, shard) end
  lost = lost + 1
end
return lost
