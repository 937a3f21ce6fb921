-- Hands out the job's shards again. Returns whether it was paused.
-- needs: queue
local job = unpack(ARGV)
if status_of(job) == 'paused' then
  redis.call('HSET', job_key(job), 'status', 'running')
  make_ready(job)
  return 1
end
return redis.call('HDEL', job_key(job), 'pause')
