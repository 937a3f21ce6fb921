-- ARGV: job, shard, attempt, what it works on from now on: rows of the shard as "start-stop", "load" for its model, empty
-- for all of the shard. Answers whether it has the lease.
local id, shard = ARGV[1], ARGV[2]
if redis.call('HGET', job_key(id, 'held'), shard) ~= ARGV[3] then return 0 end
if ARGV[4] == '' then
  redis.call('HDEL', job_key(id, 'at'), shard)
else
  redis.call('HSET', job_key(id, 'at'), shard, ARGV[4])
end
return 1
