-- Hands out no more of the job's shards; those in hand go on. Returns whether that is new.
-- needs: queue
local job = unpack(ARGV)
local status = status_of(job)
if status == 'running' then
  redis.call('HSET', job_key(job), 'status', 'paused')
  leave(job)
  return 1
end
if status == 'planning' then return redis.call('HSETNX', job_key(job), 'pause', 1) end
return 0
