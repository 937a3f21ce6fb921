-- ARGV: job, shard, attempt, lease seconds, seconds since the attempt claimed the shard. For a lease that Redis doesn't
-- know: where the claim is older than the job's entry here, Redis was emptied since and the lease stands, unless another
-- has it. Answers the job's status, unknown where it has not been entered again, or lost.
local id, shard = ARGV[1], ARGV[2]
local status = status_of(id)
if not status then return 'unknown' end
if now() - tonumber(ARGV[5]) > number_of(id, 'entered') then return 'lost' end
if status ~= 'running' then return status end
if settled(id, shard) or redis.call('HEXISTS', job_key(id, 'held'), shard) == 1 then return 'lost' end
hold(id, shard, ARGV[3], tonumber(ARGV[4]))
return status
