-- Notes that all jobs were entered into the server process `run_id`, unless Redis was emptied or another rebuilding begun
-- since the one of this token began. Returns whether it was noted.
local token, run_id = unpack(ARGV)
if redis.call('GET', P .. 'rebuilding') ~= token then return 0 end
redis.call('DEL', P .. 'rebuilding')
redis.call('SET', P .. 'epoch', run_id)
return 1
