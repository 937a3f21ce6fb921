-- Hands out no more of the job's shards; those in hand go on. Returns whether it is paused now.
-- needs: queue
local job = unpack(ARGV)
local status = status_of(job)
if status == 'running' then
  redis.call('HSET', job_key(job), 'status', 'paused')
  leave(job)
  return 1
end
if status == 'planning' then
  redis.call('HSET', job_key(job), 'pause', 1)
  return 1
end
return status == 'paused' and 1 or 0
