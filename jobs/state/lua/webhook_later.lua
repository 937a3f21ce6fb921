-- ARGV: job, seconds until its webhook is due again.
redis.call('ZADD', P .. 'notices', 'XX', now() + ARGV[2], ARGV[1])
