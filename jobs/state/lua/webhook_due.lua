-- ARGV: seconds until each is due again. Answers {job, output} of webhooks that are due, the longest due first.
local found, time = {}, now()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'notices', '-inf', time, 'LIMIT', 0, 100)) do
  redis.call('ZADD', P .. 'notices', time + ARGV[1], id)
  found[#found + 1] = {id, redis.call('HGET', P .. 'notice:' .. id, 'output')}
end
return found
