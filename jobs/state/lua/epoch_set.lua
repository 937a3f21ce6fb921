-- ARGV: token, the server's run id. Notes that all jobs were entered, unless Redis was emptied, or another rebuilding
-- begun, since this one was. Answers whether it was noted.
if redis.call('GET', P .. 'rebuilding') ~= ARGV[1] then return 0 end
redis.call('DEL', P .. 'rebuilding')
redis.call('SET', P .. 'epoch', ARGV[2])
return 1
