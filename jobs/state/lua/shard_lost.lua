-- The attempt's process is known to be gone. Returns whether its lease still stood, whether to finish the job, and whether the
-- host is suspect.
-- needs: queue, losses
local job, shard, attempt, why, max_unnamed, max_named, max_shards, able = unpack(ARGV)
if redis.call('HGET', job_key(job, 'held'), shard) ~= attempt then return {0, 0, 0} end
local host = redis.call('HGET', job_key(job, 'where'), shard) or 'unknown'
lose(job, shard, why, max_unnamed, max_named, max_shards, able, {})
local seen = cjson.decode(redis.call('HGET', job_key(job, 'blamed'), shard) or '{}')
local suspect = count_of(seen) < 2 and others_succeed(job, host)
return {1, finishable(job) and 1 or 0, suspect and 1 or 0}
