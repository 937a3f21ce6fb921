-- ARGV: job, shard, attempt, lease seconds. Claims this very shard. Answers claimed, done, leased, unknown, or the status
-- of a job that runs no more shards.
local id, shard = ARGV[1], ARGV[2]
local status = status_of(id)
if not status then return 'unknown' end
if status ~= 'running' then return status end
if settled(id, shard) then return 'done' end
local holder = redis.call('HGET', job_key(id, 'held'), shard)
if holder and holder ~= ARGV[3] then return 'leased' end
hold(id, shard, ARGV[3], tonumber(ARGV[4]))
return 'claimed'
