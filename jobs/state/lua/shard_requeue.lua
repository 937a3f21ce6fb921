-- ARGV: job, shard, attempt, delay in seconds. Lets the lease go; the shard is released again, after the delay if any.
-- Answers whether to finish.
local id, shard, delay = ARGV[1], ARGV[2], tonumber(ARGV[4])
if not let_go(id, shard, ARGV[3]) then return 0 end
if delay > 0 then
  redis.call('HINCRBY', job_key(id, 'tries'), shard, 1)
  redis.call('ZADD', P .. 'delayed', now() + delay, id .. '/' .. shard)
else
  again(id, shard)
end
return finishable(id) and 1 or 0
