-- Counts a try of the job's webhook. Returns how many tries that makes, or 0 if it is settled, or waits after a try that
-- failed: a message that came twice is no try.
local job = unpack(ARGV)
local notice = P .. 'notice:' .. job
if redis.call('EXISTS', notice) == 0 or now() < tonumber(redis.call('HGET', notice, 'next') or '0') then return 0 end
return redis.call('HINCRBY', notice, 'tries', 1)
