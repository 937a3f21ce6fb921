-- ARGV: job, shards, rows, max_errors (a number, or empty), committed shards (JSON list), rows and errors by code (JSON)
-- of those. The job's plan is in storage: its shards may be released. Answers whether to finish.
local id = ARGV[1]
if status_of(id) ~= 'planning' then return 0 end
local status = redis.call('HDEL', job_key(id), 'pause') == 1 and 'paused' or 'running'
redis.call('HSET', job_key(id), 'status', status, 'shards', ARGV[2], 'rows', ARGV[3], 'max_errors', ARGV[4])
local done = cjson.decode(ARGV[5])
for _, shard in ipairs(done) do redis.call('SETBIT', job_key(id, 'done'), shard, 1) end
redis.call('HSET', job_key(id), 'done', #done, 'rows_done', ARGV[6], 'rows_before', ARGV[6])
local error_rows = 0
for code, count in pairs(cjson.decode(ARGV[7])) do
  redis.call('HSET', job_key(id, 'errors'), code, count)
  error_rows = error_rows + count
end
redis.call('HSET', job_key(id), 'error_rows', error_rows)
make_ready(id)
return finishable(id) and 1 or 0
