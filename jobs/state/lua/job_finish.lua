-- The job's manifest is in storage. `status` is final; `keep` is how many seconds to remember the job.
-- needs: queue
local job, status, keep = unpack(ARGV)
if not status_of(job) then return end
redis.call('HSET', job_key(job), 'status', status, 'ended', now())
redis.call('ZREM', P .. 'active', job)
leave(job)
for _, part in ipairs(WHILE_UNDER_WAY) do redis.call('DEL', job_key(job, part)) end
for _, part in ipairs(KEPT) do redis.call('EXPIRE', job_key(job, part), keep) end
