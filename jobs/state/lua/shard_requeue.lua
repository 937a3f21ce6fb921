-- Drops the lease; the shard is released again, after `delay` seconds if any. Returns whether to finish the job.
-- needs: queue
local job, shard, attempt, delay = unpack(ARGV)
if not let_go(job, shard, attempt) then return 0 end
if tonumber(delay) > 0 then
  redis.call('HINCRBY', job_key(job, 'tries'), shard, 1)
  redis.call('ZADD', P .. 'delayed', now() + tonumber(delay), job .. '/' .. shard)
else
  again(job, shard)
end
return finishable(job) and 1 or 0
