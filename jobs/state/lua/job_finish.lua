-- ARGV: job, final status, seconds to remember the job. Its manifest is in storage.
local id = ARGV[1]
if not status_of(id) then return end
redis.call('HSET', job_key(id), 'status', ARGV[2], 'ended', now())
redis.call('ZREM', P .. 'active', id)
leave(id)
for _, part in ipairs({'again', 'held', 'live', 'lost', 'at', 'tries'}) do redis.call('DEL', job_key(id, part)) end
for _, part in ipairs({false, 'done', 'failed', 'errors'}) do redis.call('EXPIRE', job_key(id, part), ARGV[3]) end
