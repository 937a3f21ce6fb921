-- The shard's part is in storage. `errors` are its error rows by code (JSON). Returns whether to finish the job.
-- needs: queue
local job, shard, attempt, rows, errors = unpack(ARGV)
-- A job that is planned again after Redis was lost counts its parts in storage: this one too, or at its next attempt.
if not unfinished(job) or status_of(job) == 'planning' then return 0 end
let_go(job, shard, attempt)
if redis.call('SETBIT', job_key(job, 'done'), shard, 1) == 0 then
  redis.call('HINCRBY', job_key(job), 'done', 1)
  redis.call('HINCRBY', job_key(job), 'rows_done', rows)
  redis.call('HDEL', job_key(job), 'load_deaths', 'given_up')
  redis.call('HDEL', job_key(job, 'failed'), shard)
  redis.call('HDEL', job_key(job, 'lost'), shard)
  redis.call('HDEL', job_key(job, 'tries'), shard)
  for code, count in pairs(cjson.decode(errors)) do
    redis.call('HINCRBY', job_key(job, 'errors'), code, count)
    redis.call('HINCRBY', job_key(job), 'error_rows', count)
  end
  local limit = tonumber(redis.call('HGET', job_key(job), 'max_errors') or '')
  if limit and number_of(job, 'error_rows') > limit then
    halt(job, 'failing', cjson.encode({
      code = 'too_many_errors',
      message = number_of(job, 'error_rows') .. ' records have an error, more than max_errors allows (' .. limit .. ')'
    }))
  end
end
return finishable(job) and 1 or 0
