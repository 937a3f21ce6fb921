-- Drops the lease; the shard is released again, after `delay` seconds if any, which counts as a try. Returns whether to finish
-- the job.
-- needs: queue
local job, shard, attempt, delay = unpack(ARGV)
if not let_go(job, shard, attempt) then return 0 end
put_back(job, shard, delay)
return finishable(job) and 1 or 0
