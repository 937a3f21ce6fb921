-- Put in front of every script. All of a job's state changes happen in these scripts, each whole or not at all, and by
-- Redis's own clock, so that no worker's clock matters. Keys, all under "nightshift:":
--   job:{id}           hash: status, task, output, shards, rows, next (the first shard never handed out), counts, error,
--                      priority, tenant, model; turns (shards handed out, see take.lua), last (when the last one was),
--                      entered (when it was entered into this Redis), workers_lost, last_loss (how many, why the last);
--                      since a shard was last committed: load_deaths (workers lost over its model), given_up (shards)
--   job:{id}:done      bitmap of committed shards          job:{id}:failed   hash shard -> error (JSON)
--   job:{id}:again     list of shards to release again     job:{id}:held     hash shard -> attempt that holds its lease
--   job:{id}:live      hash shard -> rows done so far      job:{id}:errors   hash error code -> error rows
--   job:{id}:lost      hash shard -> workers lost over it: JSON list of {why, and the rows it named: start, stop}
--   job:{id}:at        hash shard -> what its attempt says it works on: rows, "start-stop", or "load", its model
--   job:{id}:tries     hash shard -> transient faults
--   ready:{task}       lanes, "{priority}/{tenant}", with shards to hand out, the highest priority first
--   ready:{task}:{lane}    the lane's jobs by their turns; negative where they had none yet
--   served             hash tenant -> its turns            took:{attempt}    what an attempt was handed out
--   leases, delayed    shards of all jobs by the time a lease runs out, or a retry is due
--   notices            ended jobs by the time their webhook is due; notice:{job}: hash of its output and tries
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
  return status == 'planning' or status == 'running' or status == 'paused' or status == 'cancelling'
    or status == 'failing'
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
  redis.call('HDEL', job_key(id, 'at'), shard)
  redis.call('ZREM', P .. 'leases', id .. '/' .. shard)
  redis.call('DEL', P .. 'took:' .. attempt)
  return true
end

-- Whether all that is left of the job is its manifest.
local function finishable(id)
  local status = status_of(id)
  if status == 'running' or status == 'paused' then
    return number_of(id, 'done') + redis.call('HLEN', job_key(id, 'failed')) >= number_of(id, 'shards')
  end
  return (status == 'cancelling' or status == 'failing') and redis.call('HLEN', job_key(id, 'held')) == 0
end

local function hold(id, shard, attempt, lease)
  redis.call('HSET', job_key(id, 'held'), shard, attempt)
  redis.call('ZADD', P .. 'leases', now() + lease, id .. '/' .. shard)
  redis.call('HSETNX', job_key(id), 'started', now())
end

-- The job's lane, and the set of lanes that it is in.
local function lane_of(id)
  local job = redis.call('HMGET', job_key(id), 'task', 'priority', 'tenant')
  local ready, lane = P .. 'ready:' .. job[1], job[2] .. '/' .. (job[3] or '')
  return ready .. ':' .. lane, ready, lane
end

-- How many shards wait in the job's list: an upper bound, since some of them may be done or in hand.
local function waiting(id)
  return redis.call('LLEN', job_key(id, 'again')) + number_of(id, 'shards') - number_of(id, 'next')
end

local function make_ready(id)
  if status_of(id) ~= 'running' or waiting(id) <= 0 then return end
  local jobs, ready, lane = lane_of(id)
  local turns = tonumber(redis.call('HGET', job_key(id), 'turns') or '')
  if turns then
    local least = redis.call('ZRANGEBYSCORE', jobs, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
    turns = math.max(turns, tonumber(least or '0'))
  else
    turns = number_of(id, 'accepted') - 1e12
    redis.call('HSETNX', job_key(id), 'last', now())
  end
  redis.call('ZADD', jobs, 'NX', turns, id)
  redis.call('ZADD', ready, 9 - number_of(id, 'priority'), lane)
end

-- Takes the job from those that have shards to hand out.
local function leave(id)
  local jobs, ready, lane = lane_of(id)
  redis.call('ZREM', jobs, id)
  if redis.call('EXISTS', jobs) == 0 then redis.call('ZREM', ready, lane) end
end

-- Takes the next shard from the job's list: nil where every one is done or in hand.
local function next_shard(id)
  local function free(shard)
    return not settled(id, shard) and redis.call('HEXISTS', job_key(id, 'held'), shard) == 0
  end
  local shard = redis.call('LPOP', job_key(id, 'again'))
  while shard do
    if free(shard) then return shard end
    shard = redis.call('LPOP', job_key(id, 'again'))
  end
  local first, shards = number_of(id, 'next'), number_of(id, 'shards')
  while first < shards and not free(first) do
    -- Over a long row of shards that are done in one step; the bits are looked at from a whole byte on.
    local open = redis.call('BITPOS', job_key(id, 'done'), 0, math.floor(first / 8))
    first = math.max(first + 1, open)
  end
  redis.call('HSET', job_key(id), 'next', math.min(first + 1, shards))
  if first < shards then return tostring(first) end
end

local function again(id, shard)
  redis.call('RPUSH', job_key(id, 'again'), shard)
  make_ready(id)
end

-- Stops handing out the job's shards; the ones in hand are let go at their next batch.
local function halt(id, status, err)
  local before = status_of(id)
  if before ~= 'planning' and before ~= 'running' and before ~= 'paused' then return false end
  redis.call('HSET', job_key(id), 'status', status, 'error', err)
  leave(id)
  return true
end

local function fail_shard(id, shard, err)
  if redis.call('GETBIT', job_key(id, 'done'), shard) == 1 then return end
  redis.call('HSET', job_key(id, 'failed'), shard, err)
end

-- Fails the job whose model ends the workers that load it: as many in a row as a shard may lose, while no other worker
-- was further than that.
local function lose_loading(id, why, most)
  if redis.call('HLEN', job_key(id, 'held')) > redis.call('HLEN', job_key(id, 'at')) then return end
  for _, what in ipairs(redis.call('HVALS', job_key(id, 'at'))) do
    if what ~= 'load' then return end
  end
  local deaths = redis.call('HINCRBY', job_key(id), 'load_deaths', 1)
  if deaths >= tonumber(most) then
    halt(id, 'failing', cjson.encode({
      code = 'model',
      message = 'the worker process was lost ' .. deaths .. ' times in a row while it loaded the model (' .. why
        .. '): it may need more memory than the workers have'
    }))
  end
end

-- Gives the shard up; where as many in a row were as `most` the job is at fault, or its workers, and fails.
local function give_up(id, shard, why, deaths, most)
  local code = why == 'lease_expired' and 'worker_lost' or why
  fail_shard(id, shard, cjson.encode({
    code = code, message = 'the worker was lost ' .. deaths .. ' times while it ran this shard'
  }))
  local shards = redis.call('HINCRBY', job_key(id), 'given_up', 1)
  if shards >= tonumber(most) then
    halt(id, 'failing', cjson.encode({
      code = code,
      message = shards .. ' shards in a row lost their worker too often, and none was done in between; the last: '
        .. deaths .. ' times (' .. why .. ')'
    }))
  end
end

-- The worker that held this shard's lease is gone: the shard is released again, or given up where its workers were lost
-- too often, be it over no rows that they named or over as many as `named` allows. That a model can't be loaded is no
-- fault of the shard.
local function lose(id, shard, why, unnamed, named, most_shards)
  local at = redis.call('HGET', job_key(id, 'at'), shard) or ''
  local start, stop = at:match('^(%d+)-(%d+)$')
  for _, part in ipairs({'held', 'live', 'at'}) do redis.call('HDEL', job_key(id, part), shard) end
  redis.call('ZREM', P .. 'leases', id .. '/' .. shard)
  if not unfinished(id) then return end
  redis.call('HINCRBY', job_key(id), 'workers_lost', 1)
  redis.call('HSET', job_key(id), 'last_loss', why)
  if at == 'load' then
    lose_loading(id, why, unnamed)
    return again(id, shard)
  end
  local deaths = cjson.decode(redis.call('HGET', job_key(id, 'lost'), shard) or '[]')
  deaths[#deaths + 1] = {why, tonumber(start), tonumber(stop)}
  local with_rows = 0
  for _, death in ipairs(deaths) do with_rows = with_rows + (death[2] and 1 or 0) end
  redis.call('HSET', job_key(id, 'lost'), shard, cjson.encode(deaths))
  if #deaths - with_rows >= tonumber(unnamed) or with_rows > tonumber(named) then
    give_up(id, shard, why, #deaths, most_shards)
  else
    again(id, shard)
  end
end
