-- Drops the lease; the shard is released again, after `delay` seconds if any, which counts as a try. `fault` is 1 if it failed,
-- rather than was put back. Returns whether to finish the job, and whether the host is suspect.
-- needs: queue, losses
local job, shard, attempt, host, fault, delay = unpack(ARGV)
if not let_go(job, shard, attempt) then return {0, 0} end
local another, suspect = false, false
if fault == '1' then
  another = select(2, blame(job, shard, host))
  suspect = not another and others_succeed(job, host)
end
put_back(job, shard, delay)
return {finishable(job) and 1 or 0, suspect and 1 or 0}
