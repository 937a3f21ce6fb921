-- ARGV: job. Its webhook was delivered, or given up.
redis.call('ZREM', P .. 'notices', ARGV[1])
redis.call('DEL', P .. 'notice:' .. ARGV[1])
