-- ARGV: job, output. The job has ended, and its webhook is due.
if redis.call('HSETNX', P .. 'notice:' .. ARGV[1], 'output', ARGV[2]) == 1 then
  redis.call('ZADD', P .. 'notices', now(), ARGV[1])
end
