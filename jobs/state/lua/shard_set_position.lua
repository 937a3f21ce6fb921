-- Notes what the attempt works on from now on: rows of the shard as "start-stop", "load" for its model, '' for all of the
-- shard. Returns whether it has the lease.
local job, shard, attempt, position = unpack(ARGV)
if redis.call('HGET', job_key(job, 'held'), shard) ~= attempt then return 0 end
if position == '' then
  redis.call('HDEL', job_key(job, 'at'), shard)
else
  redis.call('HSET', job_key(job, 'at'), shard, position)
end
return 1
