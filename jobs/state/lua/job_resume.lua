-- ARGV: job. Hands out its shards again; answers whether it was paused.
local id, status = ARGV[1], status_of(ARGV[1])
if status == 'paused' then
  redis.call('HSET', job_key(id), 'status', 'running')
  make_ready(id)
  return 1
end
return redis.call('HDEL', job_key(id), 'pause')
