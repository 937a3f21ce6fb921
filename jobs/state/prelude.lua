-- Put in front of every script. All of a job's state changes happen in these scripts, each whole or not at all, and by
-- Redis's own clock, so that no worker's clock matters. Keys, all under "nightshift:":
--   job:{id}           hash: status, task, output, shards, rows, next (the first shard never released), counts, error
--   job:{id}:done      bitmap of committed shards          job:{id}:failed   hash shard -> error (JSON)
--   job:{id}:again     list of shards to release again     job:{id}:held     hash shard -> attempt that holds its lease
--   job:{id}:live      hash shard -> rows done so far      job:{id}:errors   hash error code -> error rows
--   job:{id}:lost      hash shard -> workers lost          job:{id}:tries    hash shard -> transient faults
--   ready:{task}       jobs with shards to release, by rank    queued:{task} shards released and not yet claimed
--   leases, delayed    shards of all jobs by the time a lease runs out, or a retry is due
--   active             jobs that have not ended, by the time they were accepted

local P = 'nightshift:'

local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1e6
end

local function job_key(id, part)
  return P .. 'job:' .. id .. (part and (':' .. part) or '')
end

local function status_of(id)
  return redis.call('HGET', job_key(id), 'status')
end

-- Whether the job is known and has not ended.
local function unfinished(id)
  local status = status_of(id)
  return status == 'planning' or status == 'running' or status == 'cancelling' or status == 'failing'
end

local function number_of(id, field)
  return tonumber(redis.call('HGET', job_key(id), field) or '0')
end

local function settled(id, shard)
  return redis.call('GETBIT', job_key(id, 'done'), shard) == 1
    or redis.call('HEXISTS', job_key(id, 'failed'), shard) == 1
end

-- Drops the lease if this attempt holds it; answers whether it did.
local function let_go(id, shard, attempt)
  if redis.call('HGET', job_key(id, 'held'), shard) ~= attempt then return false end
  redis.call('HDEL', job_key(id, 'held'), shard)
  redis.call('HDEL', job_key(id, 'live'), shard)
  redis.call('ZREM', P .. 'leases', id .. '/' .. shard)
  return true
end

-- Whether all that is left of the job is its manifest.
local function finishable(id)
  local status = status_of(id)
  if status == 'running' then
    return number_of(id, 'done') + redis.call('HLEN', job_key(id, 'failed')) >= number_of(id, 'shards')
  end
  return (status == 'cancelling' or status == 'failing') and redis.call('HLEN', job_key(id, 'held')) == 0
end

local function make_ready(id)
  if status_of(id) ~= 'running' then return end
  local rank = (9 - number_of(id, 'priority')) * 1e11 + number_of(id, 'accepted')
  redis.call('ZADD', P .. 'ready:' .. redis.call('HGET', job_key(id), 'task'), rank, id)
end

local function again(id, shard)
  redis.call('RPUSH', job_key(id, 'again'), shard)
  make_ready(id)
end

-- Stops handing out the job's shards; the ones in hand are let go at their next batch.
local function stop(id, status, err)
  local before = status_of(id)
  if before ~= 'planning' and before ~= 'running' then return false end
  redis.call('HSET', job_key(id), 'status', status, 'error', err)
  redis.call('ZREM', P .. 'ready:' .. redis.call('HGET', job_key(id), 'task'), id)
  return true
end

local function fail_shard(id, shard, err)
  if redis.call('GETBIT', job_key(id, 'done'), shard) == 1 then return end
  redis.call('HSET', job_key(id, 'failed'), shard, err)
end
