-- Takes a lease again that Redis doesn't know, `age` seconds after the attempt took it. If it is older than the job's entry
-- here, Redis was emptied since: the lease stands, unless another attempt has it. A job that is being stopped waits for it.
-- Returns the job's status, unknown if the job has not been entered again, or lost.
local job, shard, attempt, host, lease, age = unpack(ARGV)
local status = status_of(job)
if not status then return 'unknown' end
if now() - tonumber(age) > number_of(job, 'entered') then return 'lost' end
if status == 'planning' or not unfinished(job) then return status end
if settled(job, shard) or redis.call('HEXISTS', job_key(job, 'held'), shard) == 1 then return 'lost' end
hold(job, shard, attempt, host, lease)
return status
