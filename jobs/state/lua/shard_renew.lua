-- ARGV: job, shard, attempt, lease seconds, rows done so far. Answers the job's status, or lost.
local id, shard = ARGV[1], ARGV[2]
if redis.call('HGET', job_key(id, 'held'), shard) ~= ARGV[3] then return 'lost' end
redis.call('ZADD', P .. 'leases', now() + tonumber(ARGV[4]), id .. '/' .. shard)
redis.call('HSET', job_key(id, 'live'), shard, ARGV[5])
return status_of(id) or 'lost'
