-- Counts a try of the job's webhook. Returns how many tries that makes, or 0 if it is settled.
local job = unpack(ARGV)
if redis.call('EXISTS', P .. 'notice:' .. job) == 0 then return 0 end
return redis.call('HINCRBY', P .. 'notice:' .. job, 'tries', 1)
