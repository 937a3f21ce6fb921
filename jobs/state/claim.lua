-- ARGV: job, shard, task, attempt, lease seconds. Answers claimed, done, leased, unknown, or the status of a job that
-- runs no more shards.
local id, shard = ARGV[1], ARGV[2]
redis.call('ZREM', P .. 'queued:' .. ARGV[3], id .. '/' .. shard)
local status = status_of(id)
if not status then return 'unknown' end
if status ~= 'running' then return status end
if settled(id, shard) then return 'done' end
if redis.call('HEXISTS', job_key(id, 'held'), shard) == 1 then return 'leased' end
redis.call('HSET', job_key(id, 'held'), shard, ARGV[4])
redis.call('ZADD', P .. 'leases', now() + tonumber(ARGV[5]), id .. '/' .. shard)
if number_of(id, 'started') == 0 then redis.call('HSET', job_key(id), 'started', now()) end
return 'claimed'
