-- Returns {job, output} of the webhooks that are due, the longest due first; each is due again after `lease` seconds.
local lease = unpack(ARGV)
local found, time = {}, now()
for _, job in ipairs(redis.call('ZRANGEBYSCORE', P .. 'notices', '-inf', time, 'LIMIT', 0, 100)) do
  redis.call('ZADD', P .. 'notices', time + lease, job)
  found[#found + 1] = {job, redis.call('HGET', P .. 'notice:' .. job, 'output')}
end
return found
