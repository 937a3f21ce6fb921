-- Notes why the job ends as it does (JSON), unless it isn't known.
local job, error = unpack(ARGV)
if status_of(job) then redis.call('HSET', job_key(job), 'error', error) end
