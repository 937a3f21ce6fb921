-- ARGV: job, shard, attempt, rows, errors by code (JSON). The shard's part is in storage. Answers whether to finish.
local id, shard = ARGV[1], ARGV[2]
-- A job that is planned again after Redis was lost takes up its parts from storage: this one, or at its next attempt.
if not unfinished(id) or status_of(id) == 'planning' then return 0 end
let_go(id, shard, ARGV[3])
if redis.call('SETBIT', job_key(id, 'done'), shard, 1) == 0 then
  redis.call('HINCRBY', job_key(id), 'done', 1)
  redis.call('HINCRBY', job_key(id), 'rows_done', ARGV[4])
  redis.call('HDEL', job_key(id), 'load_deaths', 'given_up')
  redis.call('HDEL', job_key(id, 'failed'), shard)
  redis.call('HDEL', job_key(id, 'lost'), shard)
  redis.call('HDEL', job_key(id, 'tries'), shard)
  for code, count in pairs(cjson.decode(ARGV[5])) do
    redis.call('HINCRBY', job_key(id, 'errors'), code, count)
    redis.call('HINCRBY', job_key(id), 'error_rows', count)
  end
  local limit = tonumber(redis.call('HGET', job_key(id), 'max_errors') or '')
  if limit and number_of(id, 'error_rows') > limit then
    halt(id, 'failing', cjson.encode({
      code = 'too_many_errors',
      message = number_of(id, 'error_rows') .. ' records have an error, more than max_errors allows (' .. limit .. ')'
    }))
  end
end
return finishable(id) and 1 or 0
