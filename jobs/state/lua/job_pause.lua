-- ARGV: job. Hands out none of the job's shards; those in hand go on. Answers whether that is new.
local id, status = ARGV[1], status_of(ARGV[1])
if status == 'running' then
  redis.call('HSET', job_key(id), 'status', 'paused')
  leave(id)
  return 1
end
if status == 'planning' then return redis.call('HSETNX', job_key(id), 'pause', 1) end
return 0
