-- Renews the lease, and notes how many rows are done so far. Returns the job's status, or lost.
local job, shard, attempt, lease, rows = unpack(ARGV)
if redis.call('HGET', job_key(job, 'held'), shard) ~= attempt then return 'lost' end
redis.call('ZADD', P .. 'leases', now() + tonumber(lease), job .. '/' .. shard)
redis.call('HSET', job_key(job, 'live'), shard, rows)
return status_of(job) or 'lost'
