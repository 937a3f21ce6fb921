-- ARGV: job, shard, attempt, why, how often a shard may lose its worker, over no rows and over rows, and how many shards in
-- a row. The attempt's process is known to be gone. Answers whether its lease still stood, and whether to finish the job.
local id, shard = ARGV[1], ARGV[2]
if redis.call('HGET', job_key(id, 'held'), shard) ~= ARGV[3] then return {0, 0} end
lose(id, shard, ARGV[4], ARGV[5], ARGV[6], ARGV[7])
return {1, finishable(id) and 1 or 0}
