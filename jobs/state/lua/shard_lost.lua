-- The attempt's process is known to be gone. Returns whether its lease still stood, and whether to finish the job.
-- needs: queue, losses
local job, shard, attempt, why, max_unnamed, max_named, max_shards, able = unpack(ARGV)
if redis.call('HGET', job_key(job, 'held'), shard) ~= attempt then return {0, 0} end
lose(job, shard, why, max_unnamed, max_named, max_shards, able, {})
return {1, finishable(job) and 1 or 0}
