-- ARGV: job, task, output, priority, when it was accepted, tenant, model. Enters an accepted job, to be planned. Answers 0
-- where it is known and has not ended.
local id = ARGV[1]
if unfinished(id) then return 0 end
for _, part in ipairs({false, 'done', 'failed', 'again', 'held', 'live', 'at', 'errors', 'lost', 'tries'}) do
  redis.call('DEL', job_key(id, part))
end
redis.call('HSET', job_key(id), 'status', 'planning', 'task', ARGV[2], 'output', ARGV[3], 'priority', ARGV[4],
  'accepted', ARGV[5], 'tenant', ARGV[6], 'model', ARGV[7], 'entered', now())
redis.call('ZADD', P .. 'active', ARGV[5], id)
return 1
