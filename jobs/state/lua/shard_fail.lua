-- Gives the shard up for this error (JSON); the job goes on. Returns whether to finish the job.
-- needs: queue, losses
local job, shard, attempt, error = unpack(ARGV)
if not let_go(job, shard, attempt) then return 0 end
fail_shard(job, shard, error)
return finishable(job) and 1 or 0
