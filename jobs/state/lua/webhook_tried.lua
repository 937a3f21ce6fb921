-- ARGV: job. Counts a try of its webhook: answers how many that makes, 0 where it is settled.
if redis.call('EXISTS', P .. 'notice:' .. ARGV[1]) == 0 then return 0 end
return redis.call('HINCRBY', P .. 'notice:' .. ARGV[1], 'tries', 1)
