-- The job's plan is in storage: its shards may be released. Returns whether to finish the job.
-- `done` are the committed shards (JSON list), `rows_done` and `errors` (by code, JSON) their rows; `max_errors` may be ''.
-- needs: queue
local job, shards, rows, max_errors, done, rows_done, errors = unpack(ARGV)
if status_of(job) ~= 'planning' then return 0 end
local status = redis.call('HDEL', job_key(job), 'pause') == 1 and 'paused' or 'running'
redis.call('HSET', job_key(job), 'status', status, 'shards', shards, 'rows', rows, 'max_errors', max_errors)
local committed = cjson.decode(done)
for _, shard in ipairs(committed) do redis.call('SETBIT', job_key(job, 'done'), shard, 1) end
redis.call('HSET', job_key(job), 'done', #committed, 'rows_done', rows_done, 'rows_before', rows_done)
local error_rows = 0
for code, count in pairs(cjson.decode(errors)) do
  redis.call('HSET', job_key(job, 'errors'), code, count)
  error_rows = error_rows + count
end
redis.call('HSET', job_key(job), 'error_rows', error_rows)
hold_to_max_errors(job)
make_ready(job)
return finishable(job) and 1 or 0
