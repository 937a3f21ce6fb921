-- Counts a fault that kept the job from `what`, planning say. Returns how many there were; 0 of a job that isn't known.
local job, what = unpack(ARGV)
if not status_of(job) then return 0 end
return redis.call('HINCRBY', job_key(job), what .. '_tries', 1)
