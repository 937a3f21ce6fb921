-- The shard's part is in storage. `errors` are its error rows by code (JSON). Returns whether to finish the job.
-- needs: queue
local job, shard, attempt, host, rows, errors = unpack(ARGV)
-- A job that is planned again after Redis was lost counts its parts in storage: this one too, or at its next attempt.
if not unfinished(job) or status_of(job) == 'planning' then return 0 end
let_go(job, shard, attempt)
if redis.call('SETBIT', job_key(job, 'done'), shard, 1) == 0 then
  redis.call('HINCRBY', job_key(job), 'done', 1)
  redis.call('HINCRBY', job_key(job), 'rows_done', rows)
  for _, part in ipairs({'failed', 'lost', 'tries', 'blamed'}) do redis.call('HDEL', job_key(job, part), shard) end
  redis.call('HSET', job_key(job, 'committed'), host, now())
  for code, count in pairs(cjson.decode(errors)) do
    redis.call('HINCRBY', job_key(job, 'errors'), code, count)
    redis.call('HINCRBY', job_key(job), 'error_rows', count)
  end
  hold_to_max_errors(job)
end
return finishable(job) and 1 or 0
