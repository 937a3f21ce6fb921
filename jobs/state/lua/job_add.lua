-- Enters an accepted job, to be planned. Returns 0 if it is known and has not ended. `settle_s` is how long attempts of before
-- may still be at work: 0 for a new job.
local job, task, output, priority, accepted, tenant, model, reach, settle_s = unpack(ARGV)
if unfinished(job) then return 0 end
for _, parts in ipairs({KEPT, WHILE_UNDER_WAY}) do
  for _, part in ipairs(parts) do redis.call('DEL', job_key(job, part)) end
end
redis.call('HSET', job_key(job), 'status', 'planning', 'task', task, 'output', output, 'priority', priority,
  'accepted', accepted, 'tenant', tenant, 'model', model, 'reach', reach, 'entered', now(), 'settles', now() + tonumber(settle_s))
redis.call('ZADD', P .. 'active', accepted, job)
return 1
