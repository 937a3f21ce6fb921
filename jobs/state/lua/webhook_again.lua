-- Makes the job's webhook due after so many seconds, and not before, unless it is settled.
local job, delay = unpack(ARGV)
local notice = P .. 'notice:' .. job
if redis.call('EXISTS', notice) == 0 then return end
local next_try = now() + tonumber(delay)
redis.call('HSET', notice, 'next', string.format('%.6f', next_try))
redis.call('ZADD', P .. 'notices', 'XX', next_try, job)
